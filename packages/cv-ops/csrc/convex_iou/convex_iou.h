#pragma once
// IoU and generalised IoU of the convex hull of nine points with a quadrilateral; for host and device. No torch
// include here. The geometry is in common/polygon.h.
//
// GIoU = I / U - (C - U) / C with the shared area I, the area U of the union and the area C of the convex hull of
// both (Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019). With S the area of the points' hull,
// dU = dS - dI and
//
//   dGIoU = dI / U - I dU / U^2 + dU / C - U dC / C^2
//
// At a maximum (the hull is the quadrilateral) the derivative is not defined; there dI = dS = dC, which gives 0.

#include "../common/polygon.h"

namespace cv::convex_iou {

using polygon::Box;
using polygon::box_of;
using polygon::boxes_meet;
using polygon::load_points;
using polygon::Pieces;
using polygon::Point;
using polygon::ratio;
using polygon::Ring;

constexpr int kPoints = 9;

// The hull of a set of points as it is kept for many pairs. Its area is NaN where a point is not finite.
template <typename A>
struct Hull {
  Point<A> v[kPoints];
  A count;
  A area;
  Box<A> box;
};

template <typename A, typename T>
CV_HD Hull<A> make_hull(const T* values) {
  Point<A> points[kPoints];
  load_points(values, kPoints, points);
  Hull<A> h;
  h.box = box_of(points, kPoints);
  int corners[polygon::kMaxCorners];
  const int n = polygon::convex_hull(points, kPoints, corners);
  for (int i = 0; i < kPoints; ++i) h.v[i] = points[corners[i < n ? i : 0]];
  h.count = A(n);
  h.area = polygon::area(h.v, n) + polygon::nothing_or_nan(points, kPoints);
  return h;
}

template <typename A>
CV_HD Ring<A> ring_of(const Hull<A>& h) {
  Ring<A> r;
  r.n = static_cast<int>(h.count);
  for (int i = 0; i < kPoints; ++i) r.v[i] = h.v[i];
  return r;
}

// For boxes that meet: neither has a NaN.
template <typename A>
CV_HD A iou(const Hull<A>& hull, const Pieces<A>& q) {
  A shared = polygon::shared_area(ring_of(hull), q);
  shared = shared < q.area ? shared : q.area;
  return ratio(shared, hull.area + q.area - shared);
}

// The GIoU of finite points and a finite quadrilateral, and its derivative with respect to the points.
template <typename A>
CV_HD A giou(const Point<A>* points, const Point<A>* corners, Point<A>* grad) {
  const Pieces<A> q = polygon::make_pieces(corners);
  for (int i = 0; i < kPoints; ++i) grad[i] = {A(0), A(0)};

  int hull[polygon::kMaxCorners], both[polygon::kMaxCorners];
  Ring<A> ring;
  ring.n = polygon::convex_hull(points, kPoints, hull);
  for (int i = 0; i < ring.n; ++i) ring.v[i] = points[hull[i]];
  Point<A> all[kPoints + 4], around[kPoints + 4];
  for (int i = 0; i < kPoints; ++i) all[i] = points[i];
  for (int i = 0; i < 4; ++i) all[kPoints + i] = corners[i];
  const int n = polygon::convex_hull(all, kPoints + 4, both);
  for (int i = 0; i < n; ++i) around[i] = all[both[i]];

  const A own = polygon::area(ring.v, ring.n), enclosing = polygon::area(around, n);
  A shared = polygon::shared_area(ring, q);
  shared = shared < q.area ? shared : q.area;
  const A united = own + q.area - shared;
  const A value = ratio(shared, united) - ratio(enclosing - united, enclosing);
  if (!(united > A(0) && enclosing > A(0))) return value;

  const A by_united = A(1) / enclosing - shared / united / united;  // the factor of dU
  const A by_shared = A(1) / united - by_united, by_enclosing = -united / enclosing / enclosing;
  Point<A> shared_grad[kPoints];
  for (int i = 0; i < ring.n; ++i) shared_grad[i] = {A(0), A(0)};
  for (int i = 0; i < ring.n; ++i) {
    const int next = i + 1 < ring.n ? i + 1 : 0;
    polygon::add_shared_gradient(ring.v[i], ring.v[next], q, shared_grad[i], shared_grad[next]);
  }
  for (int i = 0; i < ring.n; ++i) {
    const Point<A> d = polygon::area_gradient(ring.v[i > 0 ? i - 1 : ring.n - 1], ring.v[i + 1 < ring.n ? i + 1 : 0]);
    grad[hull[i]].x += by_shared * shared_grad[i].x + by_united * d.x;
    grad[hull[i]].y += by_shared * shared_grad[i].y + by_united * d.y;
  }
  for (int i = 0; i < n; ++i) {
    if (both[i] >= kPoints) continue;
    const Point<A> d = polygon::area_gradient(around[i > 0 ? i - 1 : n - 1], around[i + 1 < n ? i + 1 : 0]);
    grad[both[i]].x += by_enclosing * d.x, grad[both[i]].y += by_enclosing * d.y;
  }
  return value;
}

// The same for any numbers: NaN throughout where one is not finite.
template <typename A, typename T>
CV_HD void giou_row(const T* pointset, const T* polygon_corners, T* value, T* grad) {
  Point<A> points[kPoints], corners[4], d[kPoints];
  load_points(pointset, kPoints, points);
  load_points(polygon_corners, 4, corners);
  const A nothing = polygon::nothing_or_nan(points, kPoints) + polygon::nothing_or_nan(corners, 4);
  A result = nothing;
  for (int i = 0; i < kPoints; ++i) d[i] = {nothing, nothing};
  if (nothing == A(0)) result = giou(points, corners, d);
  *value = static_cast<T>(result);
  for (int i = 0; i < kPoints; ++i) grad[2 * i] = static_cast<T>(d[i].x), grad[2 * i + 1] = static_cast<T>(d[i].y);
}

}  // namespace cv::convex_iou
