#pragma once
// What the CPU and the CUDA entries of convex_iou and convex_giou share.

#include "../common/torch_stable.h"

namespace cv::convex_iou {

inline void check(const Tensor& pointsets, const Tensor& polygons) {
  STD_TORCH_CHECK(pointsets.dim() == 2 && pointsets.size(1) == 18, "convex_iou: pointsets must be [N, 18]");
  STD_TORCH_CHECK(polygons.dim() == 2 && polygons.size(1) == 8, "convex_iou: polygons must be [K, 8]");
  STD_TORCH_CHECK(pointsets.scalar_type() == polygons.scalar_type(), "convex_iou: both must share a dtype");
  STD_TORCH_CHECK(on_same_device(pointsets, polygons), "convex_iou: both tensors must be on one device");
}

inline void check_aligned(const Tensor& pointsets, const Tensor& polygons) {
  check(pointsets, polygons);
  STD_TORCH_CHECK(pointsets.size(0) == polygons.size(0), "convex_giou: there must be as many polygons as pointsets");
}

}  // namespace cv::convex_iou
