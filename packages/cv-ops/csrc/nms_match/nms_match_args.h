#pragma once
// What the CPU and the CUDA entry of nms_match share. nms_match gives for each box its group: the position in
// `keep` (what nms kept, best first) of the box itself, or of the first that suppresses it.

#include <limits>

#include "../common/torch_stable.h"

namespace cv::nms_match {

inline void check(const Tensor& boxes, const Tensor& keep) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, "nms_match: boxes must be [N, 4]");
  STD_TORCH_CHECK(keep.dim() == 1 && keep.size(0) <= boxes.size(0), "nms_match: keep must be [K], K <= N");
  STD_TORCH_CHECK(keep.scalar_type() == ScalarType::Long, "nms_match: keep must be int64");
  STD_TORCH_CHECK(on_same_device(boxes, keep), "nms_match: boxes and keep must be on one device");
  STD_TORCH_CHECK(boxes.size(0) < std::numeric_limits<int32_t>::max(), "nms_match: more than 2^31 boxes");
}

}  // namespace cv::nms_match
