#pragma once
// What the CPU and the CUDA entry of bbox_overlaps share.

#include "../common/torch_stable.h"

namespace cv::bbox_overlaps {

inline void check(const Tensor& a, const Tensor& b, bool aligned) {
  STD_TORCH_CHECK(a.dim() == 2 && a.size(1) == 4, "bbox_overlaps: bboxes1 must be [M, 4]");
  STD_TORCH_CHECK(b.dim() == 2 && b.size(1) == 4, "bbox_overlaps: bboxes2 must be [N, 4]");
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), "bbox_overlaps: both box tensors must share a dtype");
  STD_TORCH_CHECK(on_same_device(a, b), "bbox_overlaps: both box tensors must be on one device");
  STD_TORCH_CHECK(!aligned || a.size(0) == b.size(0), "bbox_overlaps: aligned needs as many boxes on both sides");
}

inline Tensor new_output(const Tensor& a, const Tensor& b, bool aligned, ScalarType dtype) {
  return aligned ? empty_beside(a, {a.size(0)}, dtype) : empty_beside(a, {a.size(0), b.size(0)}, dtype);
}

}  // namespace cv::bbox_overlaps
