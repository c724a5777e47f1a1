#pragma once
// What the CPU and the CUDA entry of nms share: parameters and checks.

#include <limits>
#include <optional>

#include "../common/torch_stable.h"

namespace cv::nms {

struct Params {
  double iou_threshold, score_threshold;
  int64_t offset, max_num;
};

// cv.ops.nms says the same in better words once these have failed.
inline void check_options(double iou_threshold, int64_t offset) {
  STD_TORCH_CHECK(iou_threshold >= 0, "nms: iou_threshold must not be negative");
  STD_TORCH_CHECK(offset == 0 || offset == 1, "nms: offset must be 0 or 1");
}

inline void check(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, "nms: boxes must be [N, 4]");
  STD_TORCH_CHECK(scores.dim() == 1 && scores.size(0) == boxes.size(0), "nms: scores must be [N]");
  STD_TORCH_CHECK(scores.scalar_type() == boxes.scalar_type(), "nms: boxes and scores must share a dtype");
  STD_TORCH_CHECK(on_same_device(boxes, scores), "nms: boxes and scores must be on one device");
  STD_TORCH_CHECK(boxes.size(0) < std::numeric_limits<int32_t>::max(), "nms: more than 2^31 boxes");
  if (groups) {
    STD_TORCH_CHECK(groups->dim() == 1 && groups->size(0) == boxes.size(0), "nms: groups must be [N]");
    STD_TORCH_CHECK(on_same_device(boxes, *groups), "nms: boxes and groups must be on one device");
    STD_TORCH_CHECK(groups->scalar_type() == ScalarType::Long, "nms: groups must be int64");
  }
}

}  // namespace cv::nms
