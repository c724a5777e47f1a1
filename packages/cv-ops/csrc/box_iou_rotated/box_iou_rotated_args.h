#pragma once
// What the CPU and the CUDA entry of box_iou_rotated share.

#include "../common/torch_stable.h"

namespace cv::box_iou_rotated {

inline void check(const Tensor& a, const Tensor& b, bool aligned) {
  STD_TORCH_CHECK(a.dim() == 2 && a.size(1) == 5, "box_iou_rotated: bboxes1 must be [M, 5]");
  STD_TORCH_CHECK(b.dim() == 2 && b.size(1) == 5, "box_iou_rotated: bboxes2 must be [N, 5]");
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), "box_iou_rotated: both box tensors must share a dtype");
  STD_TORCH_CHECK(on_same_device(a, b), "box_iou_rotated: both box tensors must be on one device");
  STD_TORCH_CHECK(!aligned || a.size(0) == b.size(0), "box_iou_rotated: aligned needs as many boxes on both sides");
}

inline Tensor new_output(const Tensor& a, const Tensor& b, bool aligned) {
  return aligned ? empty_beside(a, {a.size(0)}, a.scalar_type())
                 : empty_beside(a, {a.size(0), b.size(0)}, a.scalar_type());
}

}  // namespace cv::box_iou_rotated
