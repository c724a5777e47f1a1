#pragma once
// The rule of nms_rotated, for both backends.

#include "../common/rotated_boxes.h"
#include "../nms/shapes.h"

namespace cv::nms_rotated {

struct Rule {
  static constexpr const char* kName = "nms_rotated";
  static constexpr int kNumbers = 5;
  template <typename A> using Shape = RotatedBox<A>;

  template <typename A, typename T>
  CV_HD static RotatedBox<A> make(const T* b) {
    using B = opmath_t<T>;
    return make_rotated_box<A>(static_cast<B>(b[0]), static_cast<B>(b[1]), static_cast<B>(b[2]), static_cast<B>(b[3]),
                               static_cast<B>(b[4]));
  }

  static nms::Box<double> hull(const RotatedBox<double>& r) {
    return {r.x - r.ex, r.y - r.ey, r.x + r.ex, r.y + r.ey, r.area};
  }

  // Boxes without an area, or with one that is not finite, take no part.
  template <typename A>
  CV_HD static bool iou_exceeds(const RotatedBox<A>& kept, const RotatedBox<A>& later, A threshold) {
    return hulls_meet(kept.x, kept.y, kept.ex, kept.ey, later.x, later.y, later.ex, later.ey) &&
           rotated_overlap<false>(kept, later) > threshold;
  }
};

}  // namespace cv::nms_rotated
