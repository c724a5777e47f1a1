#pragma once
// The rule of nms_quadri, for both backends.

#include "../common/quadrilateral.h"
#include "../nms/shapes.h"

namespace cv::nms_quadri {

struct Rule {
  static constexpr const char* kName = "nms_quadri";
  static constexpr int kNumbers = 8;
  template <typename A> using Shape = Quadrilateral<A>;

  template <typename A, typename T>
  CV_HD static Quadrilateral<A> make(const T* corners) {
    return make_quadrilateral<A>(corners);
  }

  static nms::Box<double> hull(const Quadrilateral<double>& q) {
    return {q.box.x_min, q.box.y_min, q.box.x_max, q.box.y_max, q.area};
  }

  // NaN, of a shape that is not finite, exceeds nothing.
  template <typename A>
  CV_HD static bool iou_exceeds(const Quadrilateral<A>& kept, const Quadrilateral<A>& later, A threshold) {
    return overlap<false>(kept, later) > threshold;
  }
};

}  // namespace cv::nms_quadri
