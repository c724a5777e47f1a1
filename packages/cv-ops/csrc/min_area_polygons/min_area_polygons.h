#pragma once
// The rectangle of the smallest area around nine points; for host and device. No torch include here.
//
// One side of it lies along an edge of the convex hull (Freeman and Shapira, "Determining the minimum-area encasing
// rectangle for an arbitrary closed curve", 1975). So each edge gives an axis u, turned by a multiple of 90 degrees
// into the quarter u.x > 0, u.y >= 0, and v = (-u.y, u.x); the extents of the hull along u and v give the area.

#if !defined(__CUDACC__)
#include <cmath>
#endif

#include "../common/polygon.h"

namespace cv::min_area_polygons {

using polygon::Point;

constexpr int kPoints = 9;

template <typename A>
struct Frame {
  Point<A> u;
  A u_min, u_max, v_min, v_max;

  CV_HD A area() const { return (u_max - u_min) * (v_max - v_min); }
};

// The quarter-turn of e, as a unit vector, that lies in the quarter u.x > 0, u.y >= 0.
template <typename A>
CV_HD Point<A> axis_of(Point<A> e) {
  const A length = sqrt(e.x * e.x + e.y * e.y);
  const A x = e.x / length, y = e.y / length;
  if (x > A(0) && y >= A(0)) return {x, y};
  if (x <= A(0) && y > A(0)) return {y, -x};
  if (x < A(0) && y <= A(0)) return {-x, -y};
  return {-y, x};
}

// Positions are relative to points[hull[0]].
template <typename A>
CV_HD Frame<A> frame_along(Point<A> u, const Point<A>* points, const int* hull, int n) {
  Frame<A> f{u, A(0), A(0), A(0), A(0)};
  for (int i = 1; i < n; ++i) {
    const Point<A> p = points[hull[i]] - points[hull[0]];
    const A along = p.x * u.x + p.y * u.y, across = p.y * u.x - p.x * u.y;
    f.u_min = along < f.u_min ? along : f.u_min, f.u_max = along > f.u_max ? along : f.u_max;
    f.v_min = across < f.v_min ? across : f.v_min, f.v_max = across > f.v_max ? across : f.v_max;
  }
  return f;
}

// Corners in the order (u_max, v_min), (u_min, v_min), (u_min, v_max), (u_max, v_max). Of several smallest
// rectangles the one of the first edge. The points must be finite.
template <typename A>
CV_HD void smallest_rectangle(const Point<A>* points, Point<A>* corners) {
  int hull[polygon::kMaxCorners];
  const int n = polygon::convex_hull(points, kPoints, hull);
  Frame<A> best = frame_along(Point<A>{A(1), A(0)}, points, hull, n);
  for (int i = 0; i < n && n > 1; ++i) {
    const Point<A> e = points[hull[i + 1 < n ? i + 1 : 0]] - points[hull[i]];
    const Frame<A> f = frame_along(axis_of(e), points, hull, n);
    if (i == 0 || f.area() < best.area()) best = f;
  }
  const Point<A> origin = points[hull[0]], u = best.u;
  const A along[4] = {best.u_max, best.u_min, best.u_min, best.u_max};
  const A across[4] = {best.v_min, best.v_min, best.v_max, best.v_max};
  for (int k = 0; k < 4; ++k)
    corners[k] = {origin.x + along[k] * u.x - across[k] * u.y, origin.y + along[k] * u.y + across[k] * u.x};
}

// The same for any numbers: NaN throughout where one is not finite.
template <typename A, typename T>
CV_HD void rectangle_row(const T* pointset, T* out) {
  Point<A> points[kPoints], corners[4];
  for (int i = 0; i < kPoints; ++i)
    points[i] = {static_cast<A>(pointset[2 * i]), static_cast<A>(pointset[2 * i + 1])};
  const A nothing = polygon::nothing_or_nan(points, kPoints);
  for (int k = 0; k < 4; ++k) corners[k] = {nothing, nothing};
  if (nothing == A(0)) smallest_rectangle(points, corners);
  for (int k = 0; k < 4; ++k) out[2 * k] = static_cast<T>(corners[k].x), out[2 * k + 1] = static_cast<T>(corners[k].y);
}

}  // namespace cv::min_area_polygons
