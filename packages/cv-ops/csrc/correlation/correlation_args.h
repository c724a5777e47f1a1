#pragma once
// What the CPU and the CUDA entries of correlation share.

#include "../common/torch_stable.h"
#include "correlation.h"

namespace cv::correlation {

// cv.ops.correlation says the same in better words once these have failed.
inline Params check(const Tensor& first, const Tensor& second, int64_t kernel, int64_t displacement, int64_t stride,
                    int64_t padding, int64_t dilation, int64_t dilation_patch) {
  STD_TORCH_CHECK(is_floating(first), "correlation: inputs must have a floating dtype");
  STD_TORCH_CHECK(first.dim() == 4 && second.dim() == 4, "correlation: inputs must be [N, C, H, W]");
  for (int64_t d = 0; d < 4; ++d)
    STD_TORCH_CHECK(first.size(d) == second.size(d), "correlation: inputs must have the same shape");
  STD_TORCH_CHECK(first.scalar_type() == second.scalar_type() && on_same_device(first, second),
                  "correlation: inputs must share dtype and device");
  STD_TORCH_CHECK(kernel > 0 && displacement >= 0 && stride > 0 && padding >= 0 && dilation > 0 && dilation_patch > 0,
                  "correlation: sizes must be positive");
  for (const int64_t option : {kernel, displacement, stride, padding, dilation, dilation_patch})
    STD_TORCH_CHECK(option < (int64_t{1} << 30), "correlation: sizes must be below 2^30");  // products of two then fit
  const int64_t window = (kernel - 1) * dilation + 1;
  STD_TORCH_CHECK(window <= first.size(2) + 2 * padding && window <= first.size(3) + 2 * padding,
                  "correlation: kernel_size must not be larger than the padded maps");
  return {first.size(0), first.size(1), first.size(2), first.size(3), kernel,
          displacement,  stride,        padding,       dilation,      dilation_patch};
}

inline void check_grad(const Tensor& grad, const Tensor& first, const Params& p) {
  STD_TORCH_CHECK(grad.dim() == 5 && grad.size(0) == p.batch && grad.size(1) == p.patch() && grad.size(2) == p.patch() &&
                      grad.size(3) == p.out_size(p.height) && grad.size(4) == p.out_size(p.width),
                  "correlation: grad must have the shape of the output");
  STD_TORCH_CHECK(grad.scalar_type() == first.scalar_type() && on_same_device(grad, first),
                  "correlation: grad and inputs must share dtype and device");
}

}  // namespace cv::correlation
