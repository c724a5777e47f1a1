#pragma once
// What the CPU and the CUDA entry of softmax_focal_loss share.

#include <optional>

#include "../common/torch_stable.h"
#include "softmax_focal_loss.h"

namespace cv::softmax_focal_loss {

// cv.ops.softmax_focal_loss says the same in better words once these have failed.
inline void check(const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight, double gamma) {
  STD_TORCH_CHECK(is_floating(input), "softmax_focal_loss: input must have a floating dtype");
  STD_TORCH_CHECK(gamma >= 0, "softmax_focal_loss: gamma must not be negative");
  STD_TORCH_CHECK(input.dim() == 2, "softmax_focal_loss: input must be [N, C]");
  STD_TORCH_CHECK(target.dim() == 1 && target.size(0) == input.size(0), "softmax_focal_loss: target must be [N]");
  STD_TORCH_CHECK(target.scalar_type() == ScalarType::Long, "softmax_focal_loss: target must be int64");
  STD_TORCH_CHECK(on_same_device(input, target), "softmax_focal_loss: input and target must be on one device");
  if (weight) {
    STD_TORCH_CHECK(on_same_device(input, *weight), "softmax_focal_loss: input and weight must be on one device");
    STD_TORCH_CHECK(weight->dim() == 1 && weight->size(0) == input.size(1), "softmax_focal_loss: weight must be [C]");
    STD_TORCH_CHECK(weight->scalar_type() == input.scalar_type(),
                    "softmax_focal_loss: weight and input must share a dtype");
  }
}

inline void check_backward(const Tensor& grad, const Tensor& stats, const Tensor& input, int64_t reduction) {
  STD_TORCH_CHECK(grad.numel() == (reduction == kNone ? input.size(0) : 1),
                  "softmax_focal_loss: grad must have the shape of the loss");
  STD_TORCH_CHECK(grad.scalar_type() == input.scalar_type() && on_same_device(grad, input),
                  "softmax_focal_loss: grad and input must share dtype and device");
  STD_TORCH_CHECK(stats.dim() == 2 && stats.size(0) == 2 && stats.size(1) == input.size(0),
                  "softmax_focal_loss: stats must be [2, N]");
  STD_TORCH_CHECK(stats.scalar_type() == opmath_dtype(input.scalar_type()) && on_same_device(stats, input),
                  "softmax_focal_loss: stats must be those of the forward");
}

inline std::optional<Tensor> contiguous_or_none(const std::optional<Tensor>& t) {
  return t ? std::optional<Tensor>(as_contiguous(*t)) : std::nullopt;
}

// For the backward: the largest logit of each row, then the sum of the other exponentials of each row.
inline Tensor empty_stats(const Tensor& x) { return empty_beside(x, {2, x.size(0)}, opmath_dtype(x.scalar_type())); }

// (N,) or a scalar, uninitialised
inline Tensor empty_loss(const Tensor& x, int64_t reduction) {
  return reduction == kNone ? empty_beside(x, {x.size(0)}, x.scalar_type()) : empty_beside(x, {}, x.scalar_type());
}

}  // namespace cv::softmax_focal_loss
