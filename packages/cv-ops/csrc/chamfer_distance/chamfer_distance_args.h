#pragma once
// What both backends do first (cv.ops.chamfer_distance says the same in better words once they have refused).

#include <limits>

#include "../common/torch_stable.h"
#include "chamfer_distance.h"

namespace cv::chamfer_distance {

inline Sizes check(const Tensor& a, const Tensor& b) {
  STD_TORCH_CHECK(is_floating(a) && a.scalar_type() == b.scalar_type(),
                  "chamfer_distance: both sets must have one floating dtype");
  STD_TORCH_CHECK(a.dim() == 3 && a.size(2) == 2, "chamfer_distance: xyz1 must be [B, N, 2]");
  STD_TORCH_CHECK(b.dim() == 3 && b.size(2) == 2, "chamfer_distance: xyz2 must be [B, M, 2]");
  STD_TORCH_CHECK(a.size(0) == b.size(0), "chamfer_distance: both sets must have the same batch size");
  STD_TORCH_CHECK(on_same_device(a, b), "chamfer_distance: both sets must be on one device");
  STD_TORCH_CHECK(a.size(0) == 0 || (a.size(1) == 0) == (b.size(1) == 0),
                  "chamfer_distance: there is no nearest point in an empty set");
  STD_TORCH_CHECK(a.size(1) < std::numeric_limits<int32_t>::max() && b.size(1) < std::numeric_limits<int32_t>::max(),
                  "chamfer_distance: sets must have fewer than 2^31 points");
  return Sizes{a.size(0), a.size(1), b.size(1)};
}

inline Sizes check_backward(const Tensor& grad1, const Tensor& grad2, const Tensor& a, const Tensor& b,
                            const Tensor& index1, const Tensor& index2) {
  const Sizes s = check(a, b);
  const auto fits = [&](const Tensor& t, int64_t points, ScalarType dtype) {
    return t.dim() == 2 && t.size(0) == s.batch && t.size(1) == points && t.scalar_type() == dtype &&
           on_same_device(t, a);
  };
  STD_TORCH_CHECK(fits(grad1, s.first, a.scalar_type()) && fits(grad2, s.second, a.scalar_type()),
                  "chamfer_distance_backward: gradients must have the shape and dtype of the distances");
  STD_TORCH_CHECK(fits(index1, s.first, ScalarType::Int) && fits(index2, s.second, ScalarType::Int),
                  "chamfer_distance_backward: indices must be int32 and have the shape of the distances");
  return s;
}

}  // namespace cv::chamfer_distance
