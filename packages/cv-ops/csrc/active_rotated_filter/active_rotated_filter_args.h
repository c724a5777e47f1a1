#pragma once
// What both backends do first (cv.ops.active_rotated_filter says the same in better words once they have refused).

#include "../common/torch_stable.h"
#include "active_rotated_filter.h"

namespace cv::active_rotated_filter {

inline void check_indices(const Tensor& beside, const Tensor& indices) {
  STD_TORCH_CHECK(is_floating(beside), "active_rotated_filter: input must have a floating dtype");
  STD_TORCH_CHECK(indices.dim() == 4 && indices.scalar_type() == ScalarType::Int,
                  "active_rotated_filter: indices must be int32 [orientations, H, W, rotations]");
  STD_TORCH_CHECK(on_same_device(beside, indices), "active_rotated_filter: indices must be on the device of input");
  STD_TORCH_CHECK(indices.numel() < (int64_t{1} << 24), "active_rotated_filter: indices must be fewer than 2^24");
}

inline Sizes forward_sizes(const Tensor& input, const Tensor& indices) {
  check_indices(input, indices);
  STD_TORCH_CHECK(input.dim() == 5, "active_rotated_filter: input must be [O, I, orientations, H, W]");
  for (int d = 0; d < 3; ++d)
    STD_TORCH_CHECK(input.size(d + 2) == indices.size(d), "active_rotated_filter: indices do not fit the input");
  return Sizes{input.size(0), input.size(1), input.size(2) * input.size(3) * input.size(4), indices.size(3)};
}

// grad (O rotations, I orientations, H, W)
inline Sizes backward_sizes(const Tensor& grad, const Tensor& indices) {
  check_indices(grad, indices);
  const int64_t orientations = indices.size(0), rotations = indices.size(3);
  STD_TORCH_CHECK(orientations > 0 && rotations > 0, "active_rotated_filter_backward: indices must not be empty");
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) % rotations == 0 && grad.size(1) % orientations == 0 &&
                      grad.size(2) == indices.size(1) && grad.size(3) == indices.size(2),
                  "active_rotated_filter_backward: grad must have the shape of the output");
  return Sizes{grad.size(0) / rotations, grad.size(1) / orientations, orientations * grad.size(2) * grad.size(3),
               rotations};
}

inline Tensor new_output(const Tensor& input, const Sizes& s) {
  return empty_beside(input,
                      {checked_product(s.outputs, s.rotations), checked_product(s.inputs, input.size(2)),
                       input.size(3), input.size(4)},
                      input.scalar_type());
}

inline Tensor new_gradient(const Tensor& grad, const Tensor& indices, const Sizes& s) {
  return empty_beside(grad, {s.outputs, s.inputs, indices.size(0), indices.size(1), indices.size(2)},
                      grad.scalar_type());
}

}  // namespace cv::active_rotated_filter
