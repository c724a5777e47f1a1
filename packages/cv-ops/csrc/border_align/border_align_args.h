#pragma once
// What both backends do first: checks (cv.ops.border_align says the same in better words once they have failed), and
// the parameters from the arguments.

#include "../common/torch_stable.h"
#include "border_align.h"

namespace cv::border_align {

inline Params make_params(const Tensor& boxes, int64_t n, int64_t channels, int64_t h, int64_t w, int64_t pool_size) {
  STD_TORCH_CHECK(channels % kBorders == 0, "border_align: input must have shape (N, 4 C, H, W)");
  STD_TORCH_CHECK(boxes.dim() == 3 && boxes.size(0) == n && boxes.size(2) == 4,
                  "border_align: boxes must have shape (N, K, 4)");
  STD_TORCH_CHECK(pool_size > 0 && pool_size < (int64_t{1} << 24), "border_align: pool_size must be positive");
  STD_TORCH_CHECK(checked_product(h, w) < (int64_t{1} << 31), "border_align: a map must have fewer than 2^31 pixels");
  return Params{n, channels / kBorders, h, w, boxes.size(1), pool_size};
}

inline Params forward_params(const Tensor& x, const Tensor& boxes, int64_t pool_size) {
  STD_TORCH_CHECK(is_floating(x) && is_floating(boxes), "border_align: input and boxes must have a floating dtype");
  STD_TORCH_CHECK(x.dim() == 4, "border_align: input must have shape (N, 4 C, H, W)");
  STD_TORCH_CHECK(x.size(2) > 0 && x.size(3) > 0, "border_align: input must have at least one pixel");
  STD_TORCH_CHECK(on_same_device(x, boxes), "border_align: boxes must be on the device of input");
  return make_params(boxes, x.size(0), x.size(1), x.size(2), x.size(3), pool_size);
}

inline void check_grad(const Tensor& grad, const Tensor& samples, const Tensor& boxes, const Params& p) {
  for (const Tensor& t : {grad, samples})
    STD_TORCH_CHECK(t.dim() == 4 && t.size(0) == p.batch && t.size(1) == p.channels && t.size(2) == p.boxes &&
                        t.size(3) == kBorders,
                    "border_align_backward: grad and samples must have the shape of the output");
  STD_TORCH_CHECK(samples.scalar_type() == ScalarType::Int, "border_align_backward: samples must be int32");
  STD_TORCH_CHECK(on_same_device(grad, boxes) && on_same_device(grad, samples),
                  "border_align_backward: all tensors must be on one device");
}

// Coordinates keep the precision of the arithmetic, whatever the dtype of the map.
inline Tensor box_tensor(const Tensor& boxes, ScalarType map_dtype) {
  return as_contiguous(to_dtype(boxes, opmath_dtype(map_dtype)));
}

}  // namespace cv::border_align
