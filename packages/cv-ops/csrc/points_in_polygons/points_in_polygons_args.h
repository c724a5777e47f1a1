#pragma once
// What the CPU and the CUDA entry of points_in_polygons share.

#include "../common/torch_stable.h"

namespace cv::points_in_polygons {

inline void check(const Tensor& points, const Tensor& polygons) {
  STD_TORCH_CHECK(points.dim() == 2 && points.size(1) == 2, "points_in_polygons: points must be [N, 2]");
  STD_TORCH_CHECK(polygons.dim() == 2 && polygons.size(1) == 8, "points_in_polygons: polygons must be [M, 8]");
  STD_TORCH_CHECK(points.scalar_type() == polygons.scalar_type(),
                  "points_in_polygons: points and polygons must share a dtype");
  STD_TORCH_CHECK(on_same_device(points, polygons), "points_in_polygons: both tensors must be on one device");
}

}  // namespace cv::points_in_polygons
