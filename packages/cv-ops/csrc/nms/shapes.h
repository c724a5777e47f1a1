#pragma once
// NMS of shapes that a rule knows, by their axis-aligned hulls and exact overlaps: what both backends check. A rule is
//
//   struct Rule {
//     static constexpr const char* kName;                           // of the operator
//     static constexpr int kNumbers;                                // of a box
//     template <typename A> using Shape;                            // has .area: takes no part unless it is > 0
//     template <typename A, typename T> static Shape<A> make(const T* box);
//     static nms::Box<double> hull(const Shape<double>&);           // with the shape's area; of a shape that takes part
//     template <typename A> static bool iou_exceeds(const Shape<A>& kept, const Shape<A>& later, A threshold);
//   };

#include <limits>
#include <optional>

#include "../common/torch_stable.h"
#include "nms.h"

namespace cv::nms {

inline void check_shapes(const char* name, int64_t numbers, const Tensor& boxes, const Tensor& scores,
                         const std::optional<Tensor>& groups, double iou_threshold) {
  STD_TORCH_CHECK(iou_threshold >= 0, name, ": iou_threshold must not be negative");
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == numbers, name, ": dets must be [N, ", numbers, "]");
  STD_TORCH_CHECK(scores.dim() == 1 && scores.size(0) == boxes.size(0), name, ": scores must be [N]");
  STD_TORCH_CHECK(scores.scalar_type() == boxes.scalar_type(), name, ": dets and scores must share a dtype");
  STD_TORCH_CHECK(on_same_device(boxes, scores), name, ": dets and scores must be on one device");
  STD_TORCH_CHECK(boxes.size(0) < std::numeric_limits<int32_t>::max(), name, ": more than 2^31 boxes");
  if (groups) {
    STD_TORCH_CHECK(groups->dim() == 1 && groups->size(0) == boxes.size(0), name, ": groups must be [N]");
    STD_TORCH_CHECK(on_same_device(boxes, *groups), name, ": dets and groups must be on one device");
    STD_TORCH_CHECK(groups->scalar_type() == ScalarType::Long, name, ": groups must be int64");
  }
}

}  // namespace cv::nms
