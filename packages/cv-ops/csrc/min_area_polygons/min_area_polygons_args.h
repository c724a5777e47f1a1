#pragma once
// What the CPU and the CUDA entry of min_area_polygons share.

#include "../common/torch_stable.h"

namespace cv::min_area_polygons {

inline void check(const Tensor& pointsets) {
  STD_TORCH_CHECK(pointsets.dim() == 2 && pointsets.size(1) == 18, "min_area_polygons: pointsets must be [N, 18]");
}

}  // namespace cv::min_area_polygons
