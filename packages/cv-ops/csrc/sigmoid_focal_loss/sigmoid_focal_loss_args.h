#pragma once
// What the CPU and the CUDA entry of sigmoid_focal_loss share.

#include <optional>

#include "../common/torch_stable.h"
#include "sigmoid_focal_loss.h"

namespace cv::sigmoid_focal_loss {

// cv.ops.sigmoid_focal_loss says the same in better words once these have failed.
inline void check(const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight, double gamma) {
  STD_TORCH_CHECK(is_floating(input), "sigmoid_focal_loss: input must have a floating dtype");
  STD_TORCH_CHECK(gamma >= 0, "sigmoid_focal_loss: gamma must not be negative");
  STD_TORCH_CHECK(input.dim() == 2, "sigmoid_focal_loss: input must be [N, C]");
  STD_TORCH_CHECK(target.dim() == 1 && target.size(0) == input.size(0), "sigmoid_focal_loss: target must be [N]");
  STD_TORCH_CHECK(target.scalar_type() == ScalarType::Long, "sigmoid_focal_loss: target must be int64");
  STD_TORCH_CHECK(on_same_device(input, target), "sigmoid_focal_loss: input and target must be on one device");
  if (weight) {
    STD_TORCH_CHECK(on_same_device(input, *weight), "sigmoid_focal_loss: input and weight must be on one device");
    STD_TORCH_CHECK(weight->dim() == 1 && weight->size(0) == input.size(1), "sigmoid_focal_loss: weight must be [C]");
    STD_TORCH_CHECK(weight->scalar_type() == input.scalar_type(),
                    "sigmoid_focal_loss: weight and input must share a dtype");
  }
}

inline void check_grad(const Tensor& grad, const Tensor& input, int64_t reduction) {
  STD_TORCH_CHECK(grad.numel() == (reduction == kNone ? input.numel() : 1),
                  "sigmoid_focal_loss: grad must have the shape of the loss");
  STD_TORCH_CHECK(grad.scalar_type() == input.scalar_type() && on_same_device(grad, input),
                  "sigmoid_focal_loss: grad and input must share dtype and device");
}

}  // namespace cv::sigmoid_focal_loss
