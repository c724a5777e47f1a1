#pragma once
// What both backends do first: checks (cv.ops says the same in better words once they have failed), and the
// parameters from the arguments.

#include "../common/torch_stable.h"
#include "multi_scale_deform_attn.h"

namespace cv::multi_scale_deform_attn {

inline Params make_params(const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
                          const Tensor& weights) {
  STD_TORCH_CHECK(is_floating(value) && is_floating(locations) && is_floating(weights),
                  "multi_scale_deform_attn: value, sampling_locations and attention_weights must have a floating dtype");
  STD_TORCH_CHECK(value.dim() == 4, "multi_scale_deform_attn: value must have shape (N, keys, heads, channels)");
  STD_TORCH_CHECK(locations.dim() == 6 && locations.size(5) == 2,
                  "multi_scale_deform_attn: sampling_locations must have shape (N, queries, heads, levels, points, 2)");
  const Params p{value.size(0),     value.size(1),     value.size(2),    value.size(3),
                 locations.size(1), locations.size(3), locations.size(4)};
  STD_TORCH_CHECK(locations.size(0) == p.batch && locations.size(2) == p.heads,
                  "multi_scale_deform_attn: value and sampling_locations must have the same batch and heads");
  STD_TORCH_CHECK(weights.dim() == 5 && weights.size(0) == p.batch && weights.size(1) == p.queries &&
                      weights.size(2) == p.heads && weights.size(3) == p.levels && weights.size(4) == p.points,
                  "multi_scale_deform_attn: attention_weights must have the shape of the locations, without the 2");
  STD_TORCH_CHECK(shapes.dim() == 2 && shapes.size(0) == p.levels && shapes.size(1) == 2 && starts.dim() == 1 &&
                      starts.size(0) == p.levels,
                  "multi_scale_deform_attn: spatial_shapes must have shape (levels, 2), level_start_index (levels,)");
  STD_TORCH_CHECK(shapes.scalar_type() == ScalarType::Long && starts.scalar_type() == ScalarType::Long,
                  "multi_scale_deform_attn: spatial_shapes and level_start_index must be int64");
  STD_TORCH_CHECK(p.keys < (int64_t{1} << 31) && p.samples() < (int64_t{1} << 28),
                  "multi_scale_deform_attn: too many keys or samples");
  for (const Tensor* t : {&shapes, &starts, &locations, &weights})
    STD_TORCH_CHECK(on_same_device(*t, value), "multi_scale_deform_attn: all tensors must be on one device");
  return p;
}

inline void check_grad(const Tensor& grad, const Tensor& value, const Params& p) {
  STD_TORCH_CHECK(grad.dim() == 3 && grad.size(0) == p.batch && grad.size(1) == p.queries &&
                      grad.size(2) == p.key_stride() && grad.scalar_type() == value.scalar_type(),
                  "multi_scale_deform_attn_backward: grad must have shape and dtype of the output");
}

}  // namespace cv::multi_scale_deform_attn
