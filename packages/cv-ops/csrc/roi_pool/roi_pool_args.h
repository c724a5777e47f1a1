#pragma once
// What both backends do first: checks (cv.ops says the same in better words once they have failed), and the
// parameters from the arguments.

#include "../common/roi_check.h"
#include "roi_pool.h"

namespace cv::roi_pool {

inline Params make_params(const Tensor& x, const Tensor& rois, double spatial_scale, int64_t pooled_h,
                          int64_t pooled_w) {
  roi::check_map_and_rois("roi_pool", x, rois, 5);
  STD_TORCH_CHECK(pooled_h < (1 << 24) && pooled_w < (1 << 24), "roi_pool: output_size must be below 2^24");
  const Params p{x.size(0), x.size(1), x.size(2), x.size(3), pooled_h, pooled_w, 0, spatial_scale, false};
  roi::check_numbers("roi_pool", p);
  return p;
}

// The backward pass knows the winning pixels and needs only the image of each box.
inline Params backward_params(const Tensor& grad, const Tensor& rois, const Tensor& argmax, int64_t n, int64_t c,
                              int64_t h, int64_t w) {
  STD_TORCH_CHECK(grad.dim() == 4 && argmax.dim() == 4, "roi_pool_backward: grad must have the shape of the output");
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 5 && rois.size(0) == grad.size(0),
                  "roi_pool_backward: rois must have shape (K, 5)");
  for (int d = 0; d < 4; ++d)
    STD_TORCH_CHECK(grad.size(d) == argmax.size(d), "roi_pool_backward: argmax must have the shape of grad");
  STD_TORCH_CHECK(grad.size(1) == c, "roi_pool_backward: grad must have the channels of the input");
  STD_TORCH_CHECK(argmax.scalar_type() == ScalarType::Int, "roi_pool_backward: argmax must be int32");
  STD_TORCH_CHECK(checked_product(h, w) < (int64_t{1} << 31), "roi_pool_backward: a map must have fewer than 2^31 pixels");
  STD_TORCH_CHECK(on_same_device(grad, rois) && on_same_device(grad, argmax),
                  "roi_pool_backward: all tensors must be on one device");
  return Params{n, c, h, w, grad.size(2), grad.size(3), 0, 1.0, false};
}

// Coordinates keep the precision of the arithmetic, whatever the dtype of the map.
inline Tensor region_tensor(const Tensor& rois, ScalarType map_dtype) {
  return as_contiguous(to_dtype(rois, opmath_dtype(map_dtype)));
}

}  // namespace cv::roi_pool
