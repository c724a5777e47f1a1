#pragma once
// What the CPU and the CUDA entries of fused_bias_leakyrelu share.

#include <limits>
#include <optional>

#include "../common/memory_format.h"
#include "../common/torch_stable.h"
#include "fused_bias_leakyrelu.h"

namespace cv::fused_bias_leakyrelu {

// Memory seen as (outer, channels, inner): inner is 1 for (N, C) and for channels-last tensors.
struct Shape {
  int64_t outer, channels, inner;

  int64_t numel() const { return outer * channels * inner; }

  static Shape of(const Tensor& t, bool nhwc) {
    Shape s{t.size(0), t.size(1), 1};
    for (int64_t d = 2; d < t.dim(); ++d) (nhwc ? s.outer : s.inner) *= t.size(d);
    return s;
  }
};

inline Tensor in_layout(const Tensor& t, bool nhwc) { return nhwc ? channels_last(t) : as_contiguous(t); }

// cv.ops.fused_bias_leakyrelu says the same in better words once this and check_numbers have failed.
inline void check(const Tensor& input, const std::optional<Tensor>& bias, const std::optional<Tensor>& output) {
  STD_TORCH_CHECK(is_floating(input), "fused_bias_leakyrelu: input must have a floating dtype");
  STD_TORCH_CHECK(input.dim() >= 2, "fused_bias_leakyrelu: input must be [N, C, ...]");
  if (bias) {
    STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == input.size(1), "fused_bias_leakyrelu: bias must be [C]");
    STD_TORCH_CHECK(bias->scalar_type() == input.scalar_type() && on_same_device(*bias, input),
                    "fused_bias_leakyrelu: bias must have the dtype and device of input");
  }
  if (output) {
    bool same = output->dim() == input.dim();
    for (int64_t d = 0; same && d < input.dim(); ++d) same = output->size(d) == input.size(d);
    STD_TORCH_CHECK(same && output->scalar_type() == input.scalar_type() && on_same_device(*output, input),
                    "fused_bias_leakyrelu: output must have the shape, dtype and device of input");
  }
}

inline void check_numbers(double slope, double scale) {
  constexpr double largest = std::numeric_limits<double>::max();
  STD_TORCH_CHECK(slope >= 0 && slope <= largest, "fused_bias_leakyrelu: slope must not be negative");
  STD_TORCH_CHECK(scale > 0 && scale <= largest, "fused_bias_leakyrelu: scale must be positive");
}

template <typename A>
Factors<A> make_factors(double slope, double scale) {
  return {static_cast<A>(scale), static_cast<A>(scale * slope)};
}

// Uninitialised, with the sizes and the strides of t, which is dense.
inline Tensor empty_with_layout_of(const Tensor& t) { return torch::stable::empty_like(t); }

}  // namespace cv::fused_bias_leakyrelu
