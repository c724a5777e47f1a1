#pragma once
// What the CPU and the CUDA half of nms_rotated share: the rule and the checks.

#include <limits>
#include <optional>

#include "../common/rotated_boxes.h"
#include "../common/torch_stable.h"

namespace cv::nms_rotated {

// Boxes without an area, or with one that is not finite, take no part.
template <typename A>
CV_HD bool iou_exceeds(const RotatedBox<A>& kept, const RotatedBox<A>& later, A threshold) {
  return hulls_meet(kept.x, kept.y, kept.ex, kept.ey, later.x, later.y, later.ex, later.ey) &&
         rotated_overlap<false>(kept, later) > threshold;
}

inline void check(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups,
                  double iou_threshold) {
  STD_TORCH_CHECK(iou_threshold >= 0, "nms_rotated: iou_threshold must not be negative");
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 5, "nms_rotated: dets must be [N, 5]");
  STD_TORCH_CHECK(scores.dim() == 1 && scores.size(0) == boxes.size(0), "nms_rotated: scores must be [N]");
  STD_TORCH_CHECK(scores.scalar_type() == boxes.scalar_type(), "nms_rotated: dets and scores must share a dtype");
  STD_TORCH_CHECK(on_same_device(boxes, scores), "nms_rotated: dets and scores must be on one device");
  STD_TORCH_CHECK(boxes.size(0) < std::numeric_limits<int32_t>::max(), "nms_rotated: more than 2^31 boxes");
  if (groups) {
    STD_TORCH_CHECK(groups->dim() == 1 && groups->size(0) == boxes.size(0), "nms_rotated: groups must be [N]");
    STD_TORCH_CHECK(on_same_device(boxes, *groups), "nms_rotated: dets and groups must be on one device");
    STD_TORCH_CHECK(groups->scalar_type() == ScalarType::Long, "nms_rotated: groups must be int64");
  }
}

}  // namespace cv::nms_rotated
