#pragma once
// Whether a point lies strictly inside a quadrilateral; for host and device. No torch include here.
//
// Even-odd rule: a ray from the point to the right crosses the outline an odd number of times. An edge counts if
// exactly one of its ends is above the point, so that a corner on the ray counts once or twice as it should, and
// whether it crosses to the right is the sign of a cross product. A point on the outline is not inside.
//
// In double for every dtype: for float32 coordinates of similar size the cross product is then exact, and with it
// the answer; a point that lies on an edge is recognised as such.

#include "../common/macros.h"

namespace cv::points_in_polygons {

constexpr int kCorners = 4;

struct Polygon {
  double x[kCorners + 1], y[kCorners + 1];  // the last corner is the first again
  double x_min, x_max, y_min, y_max;        // nothing lies within those of a polygon that is not finite
};

template <typename T>
CV_HD Polygon make_polygon(const T* corners) {
  Polygon p;
  double nothing = 0;  // or NaN
  for (int k = 0; k < kCorners; ++k) {
    const double x = static_cast<double>(corners[2 * k]), y = static_cast<double>(corners[2 * k + 1]);
    p.x[k] = x, p.y[k] = y;
    nothing += (x - x) + (y - y);
    p.x_min = k == 0 || x < p.x_min ? x : p.x_min, p.x_max = k == 0 || x > p.x_max ? x : p.x_max;
    p.y_min = k == 0 || y < p.y_min ? y : p.y_min, p.y_max = k == 0 || y > p.y_max ? y : p.y_max;
  }
  p.x[kCorners] = p.x[0], p.y[kCorners] = p.y[0];
  p.x_min += nothing, p.x_max += nothing, p.y_min += nothing, p.y_max += nothing;
  return p;
}

// False for a NaN. Points on the border of the axis-aligned hull lie outside or on the outline.
CV_HD bool in_hull(double x, double y, const Polygon& p) {
  return (x > p.x_min) & (x < p.x_max) & (y > p.y_min) & (y < p.y_max);
}

// For a finite polygon and a finite point: 1 inside, else 0. Without branches, for vectorised loops.
CV_HD long long is_inside(double x, double y, const Polygon& p) {
  long long odd = 0, on = 0;
  for (int k = 0; k < kCorners; ++k) {
    const double ax = x - p.x[k], ay = y - p.y[k], bx = x - p.x[k + 1], by = y - p.y[k + 1];
    const double dx = p.x[k + 1] - p.x[k], dy = p.y[k + 1] - p.y[k];
    const double cross = dx * ay - dy * ax;
    const long long straddles = (ay < 0.0 ? 1 : 0) ^ (by < 0.0 ? 1 : 0);
    const long long right = (cross > 0.0 ? 1 : 0) ^ (dy > 0.0 ? 0 : 1);
    odd ^= straddles & right;
    on |= (cross == 0.0 ? 1 : 0) & (ax * bx + ay * by <= 0.0 ? 1 : 0);
  }
  return odd & (on ^ 1);
}

}  // namespace cv::points_in_polygons
