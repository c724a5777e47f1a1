#pragma once
// Overlap of two axis-aligned boxes (x1, y1, x2, y2) with sides x2 - x1 + offset. No torch include here.
//
//   iou = intersection / union          iof = intersection / area of the first box
//
// Where the denominator is below `offset` it is taken as `offset`. Boxes that do not intersect give 0, also
// where both are empty (no 0/0). A box whose area is not finite (NaN or infinite corners) gives NaN.

#include "../common/macros.h"

namespace cv::bbox_overlaps {

template <typename A>
struct Box {
  A x1, y1, x2, y2, area;
};

template <typename A>
CV_HD Box<A> make_box(A x1, A y1, A x2, A y2, A offset) {
  return {x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)};
}

template <typename A> CV_HD A smaller(A a, A b) { return a < b ? a : b; }
template <typename A> CV_HD A larger(A a, A b) { return a > b ? a : b; }

template <typename A> CV_HD A smallest_positive();
template <> CV_HD float smallest_positive<float>() { return 1.401298464324817e-45f; }
template <> CV_HD double smallest_positive<double>() { return 4.940656458412465e-324; }

// kForeground: iof. a is the first box.
template <bool kForeground, typename A>
CV_HD A overlap(const Box<A>& a, A x1, A y1, A x2, A y2, A area, A offset) {
  const A w = smaller(a.x2, x2) - larger(a.x1, x1) + offset;
  const A h = smaller(a.y2, y2) - larger(a.y1, y1) + offset;
  const A inter = larger(w, A(0)) * larger(h, A(0));
  const A all = kForeground ? a.area : a.area + area - inter;
  // Where this is 0 (or negative: an inverted box) the intersection is 0, and any positive number will do.
  const A base = larger(all, larger(offset, smallest_positive<A>()));
  const A value = inter / base;
  // Adds 0, or NaN where an area is NaN or infinite. Arithmetic, since a select around the division makes
  // the compiler branch, and then the loop around this is not vectorised.
  return value + ((a.area - a.area) + (area - area));
}

}  // namespace cv::bbox_overlaps
