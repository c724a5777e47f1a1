#pragma once
// Non-maximum suppression: the predicate, once, for host and device. No torch include here.
//
// Boxes are (x1, y1, x2, y2), sides x2 - x1 + offset. A box takes part if both sides are positive and its
// area is finite; any other (empty, inverted, NaN, infinite) has no IoU above any threshold >= 0: it is
// kept and suppresses nothing.

#include <math.h>

#include "../common/macros.h"

namespace cv::nms {

template <typename A>
struct Box {
  A x1, y1, x2, y2, area;
};

template <typename A> CV_HD A smaller(A a, A b) { return a < b ? a : b; }
template <typename A> CV_HD A larger(A a, A b) { return a > b ? a : b; }

// The box with its area; one that takes no part becomes the empty box, of area 0, whose IoU with any box
// is 0 or NaN and so above no threshold.
template <typename A>
CV_HD Box<A> make_box(A x1, A y1, A x2, A y2, A offset) {
  const A w = x2 - x1 + offset, h = y2 - y1 + offset;
  const A area = w * h;
  if (w > A(0) && h > A(0) && area > A(0) && area - area == A(0))  // inf - inf and NaN are no 0
    return {x1, y1, x2, y2, area};
  const A inf = A(HUGE_VAL);
  return {inf, inf, -inf, -inf, A(0)};
}

template <typename A>
CV_HD A overlap_side(A lo1, A hi1, A lo2, A hi2, A offset) {
  return larger(smaller(hi1, hi2) - larger(lo1, lo2) + offset, A(0));
}

// IoU(a, b) > threshold. A division, not a product with the threshold: it is
// the one form that is exact on ties, i.e. where the IoU of integer boxes equals the threshold. Compiled
// without FMA contraction (options.cmake), so every instruction set and the GPU decide alike.
template <typename A>
CV_HD bool iou_exceeds(const Box<A>& a, A x1, A y1, A x2, A y2, A area, A offset, A threshold) {
  const A inter = overlap_side(a.x1, a.x2, x1, x2, offset) * overlap_side(a.y1, a.y2, y1, y2, offset);
  return inter / (a.area + area - inter) > threshold;
}

}  // namespace cv::nms
