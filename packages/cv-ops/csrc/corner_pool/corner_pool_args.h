#pragma once
// What the CPU and the CUDA entry of corner_pool share.
//
// out at position i of a line is the largest input at positions 0..i of it, lines running along H or W, forwards or
// backwards (Law and Deng, "CornerNet", 2018). A NaN wins, and stays. The gradient of out[i] goes to the last
// position that attained the maximum by then, which is where input and output agree: so the gradient of the input
// is, at such a record, the sum of the gradients from there to before the next record, and 0 elsewhere.

#include "../common/memory_format.h"

namespace cv::corner_pool {

// A tensor as (outer, length, inner), lines along the middle.
struct Lines {
  int64_t outer, length, inner;
};

// dim: 2 or 3
inline Lines lines_of(const Tensor& x, int64_t dim, bool nhwc) {
  const int64_t n = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
  if (nhwc) return dim == 2 ? Lines{n, h, w * c} : Lines{n * h, w, c};
  return dim == 2 ? Lines{n * c, h, w} : Lines{n * c * h, w, 1};
}

inline void check(const Tensor& input, int64_t dim) {
  STD_TORCH_CHECK(is_floating(input), "corner_pool: input must have a floating dtype");
  STD_TORCH_CHECK(input.dim() == 4, "corner_pool: input must be [N, C, H, W]");
  STD_TORCH_CHECK(dim == 2 || dim == 3, "corner_pool: dim must be 2 or 3");
}

inline void check_backward(const Tensor& grad, const Tensor& input, const Tensor& output) {
  for (const Tensor* t : {&grad, &output}) {
    STD_TORCH_CHECK(t->dim() == 4, "corner_pool: grad and output must have the shape of input");
    for (int64_t d = 0; d < 4; ++d)
      STD_TORCH_CHECK(t->size(d) == input.size(d), "corner_pool: grad and output must have the shape of input");
    STD_TORCH_CHECK(t->scalar_type() == input.scalar_type() && on_same_device(*t, input),
                    "corner_pool: grad, output and input must share dtype and device");
  }
}

inline Tensor in_layout(const Tensor& t, bool nhwc) { return nhwc ? channels_last(t) : as_contiguous(t); }

inline Tensor empty_like(const Tensor& x, bool nhwc) {
  return empty_4d(x, x.size(0), x.size(1), x.size(2), x.size(3), x.scalar_type(), nhwc);
}

}  // namespace cv::corner_pool
