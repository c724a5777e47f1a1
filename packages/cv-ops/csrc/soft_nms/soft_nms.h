#pragma once
// Soft-NMS (Bodla et al., 2017): a box that overlaps a better one has its score lowered instead of going. This is
// the factor, for host and device; boxes and their overlap are those of nms. No torch include here.

#include "../common/vmath.h"
#include "../nms/nms.h"

namespace cv::soft_nms {

enum class Method : int { naive = 0, linear = 1, gaussian = 2 };  // the order of cv.ops.soft_nms

template <typename A>
struct Decay {
  A threshold, sigma, min_score, offset;
};

// What the score of the second box is multiplied by: 1 where one of them takes no part in nms.
template <Method kMethod, typename A>
CV_HD A factor(const nms::Box<A>& a, A x1, A y1, A x2, A y2, A area, const Decay<A>& d) {
  const A inter =
      nms::overlap_side(a.x1, a.x2, x1, x2, d.offset) * nms::overlap_side(a.y1, a.y2, y1, y2, d.offset);
  const A all = a.area + area - inter;
  const A iou = inter / (all > A(0) ? all : A(1));  // two boxes without area: 0
  if (kMethod == Method::gaussian) return fast_exp(-(iou * iou) / d.sigma);
  const A lowered = kMethod == Method::linear ? A(1) - iou : A(0);
  return (iou >= d.threshold) & (inter > A(0)) ? lowered : A(1);
}

// A score below min_score (or NaN) is out: -infinity.
template <typename A>
CV_HD A filtered(A score, A min_score) {
  return score >= min_score ? score : -A(HUGE_VAL);
}

}  // namespace cv::soft_nms
