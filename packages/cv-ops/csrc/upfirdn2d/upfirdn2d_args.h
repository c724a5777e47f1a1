#pragma once
// What the CPU and the CUDA entry of upfirdn2d share.

#include "../common/torch_stable.h"
#include "upfirdn2d.h"

namespace cv::upfirdn2d {

struct Params {
  int64_t planes;
  Axis y, x;
  bool flip;  // a convolution: the kernel is read backwards
};

// cv.ops.upfirdn2d says the same in better words once these have failed.
inline Params check(const Tensor& input, const Tensor& kernel, int64_t up_x, int64_t up_y, int64_t down_x,
                    int64_t down_y, int64_t pad_x0, int64_t pad_x1, int64_t pad_y0, int64_t pad_y1, bool flip) {
  STD_TORCH_CHECK(is_floating(input), "upfirdn2d: input must have a floating dtype");
  STD_TORCH_CHECK(input.dim() == 4, "upfirdn2d: input must be [N, C, H, W]");
  STD_TORCH_CHECK(kernel.dim() == 2 && kernel.numel() > 0, "upfirdn2d: kernel must be [KH, KW] and not empty");
  STD_TORCH_CHECK(on_same_device(input, kernel), "upfirdn2d: input and kernel must be on one device");
  STD_TORCH_CHECK(kernel.scalar_type() == input.scalar_type() ||
                      kernel.scalar_type() == opmath_dtype(input.scalar_type()),
                  "upfirdn2d: kernel must have the dtype of input, or float32 for half types");
  STD_TORCH_CHECK(up_x > 0 && up_y > 0 && down_x > 0 && down_y > 0, "upfirdn2d: up and down must be positive");
  constexpr int64_t most = int64_t{1} << 59;  // sums of a few of them fit
  STD_TORCH_CHECK(down_x <= most && down_y <= most, "upfirdn2d: down is too large");  // the gradient's up
  for (const int64_t pad : {pad_x0, pad_x1, pad_y0, pad_y1})
    STD_TORCH_CHECK(pad >= -most && pad <= most, "upfirdn2d: pad is too large");
  STD_TORCH_CHECK(checked_product(input.size(2), up_y) <= most && checked_product(input.size(3), up_x) <= most,
                  "upfirdn2d: up is too large");
  const Params p{checked_product(input.size(0), input.size(1)),
                 Axis::make(input.size(2), up_y, down_y, pad_y0, pad_y1, kernel.size(0)),
                 Axis::make(input.size(3), up_x, down_x, pad_x0, pad_x1, kernel.size(1)), flip};
  STD_TORCH_CHECK(p.y.out > 0 && p.x.out > 0, "upfirdn2d: the padded input is smaller than the kernel");
  return p;
}

}  // namespace cv::upfirdn2d
