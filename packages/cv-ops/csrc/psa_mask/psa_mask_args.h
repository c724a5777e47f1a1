#pragma once
// What the CPU and the CUDA entry of psa_mask share.

#include "../common/move.h"
#include "psa_mask.h"

namespace cv::psa_mask {

// cv.ops.psa_mask says the same in better words once these have failed.
inline Geometry geometry_of(const Tensor& input, int64_t mask_h, int64_t mask_w, bool distribute) {
  STD_TORCH_CHECK(is_floating(input), "psa_mask: input must have a floating dtype");
  STD_TORCH_CHECK(input.dim() == 4, "psa_mask: input must be [N, mask_h * mask_w, H, W]");
  STD_TORCH_CHECK(mask_h > 0 && mask_w > 0 && input.size(1) == checked_product(mask_h, mask_w),
                  "psa_mask: input must have mask_h * mask_w channels");
  return {input.size(0), input.size(2), input.size(3), mask_h, mask_w, distribute};
}

inline Geometry geometry_of_grad(const Tensor& grad, int64_t mask_h, int64_t mask_w, bool distribute) {
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(1) == checked_product(grad.size(2), grad.size(3)) && mask_h > 0 && mask_w > 0,
                  "psa_mask_backward: grad must be [N, H * W, H, W]");
  return {grad.size(0), grad.size(2), grad.size(3), mask_h, mask_w, distribute};
}

inline Tensor empty_pairs(const Tensor& x, const Geometry& g) {
  return empty_beside(x, {g.n, checked_product(g.h, g.w), g.h, g.w}, x.scalar_type());
}
inline Tensor empty_masks(const Tensor& x, const Geometry& g) {
  return empty_beside(x, {g.n, checked_product(g.mask_h, g.mask_w), g.h, g.w}, x.scalar_type());
}

}  // namespace cv::psa_mask
