#pragma once
// Convex hulls of a few points, and what they share with a quadrilateral; for host and device. No torch include here.
//
// Outlines run in the positive direction, from x towards y. A quadrilateral that is not convex is the sum of two
// triangles with signs. The shared area of two convex polygons is what is left of the one after the half-planes of
// the other's edges have cut it; each cut moves corners by rounding errors only, nearly parallel edges included.
//
// How the shared area changes with a corner of the hull: moving an edge outwards by v(s) adds the integral of v over
// that part of the edge that lies within the other polygon. If a and b = a + e move, v is linear between them; with
// the part [s, t] of [0, 1] and the outward normal n = (e.y, -e.x), as long as the edge,
//
//   d area / d b = n (t^2 - s^2) / 2          d area / d a = n (t - s) - d area / d b

#include "macros.h"

namespace cv::polygon {

template <typename A>
struct Point {
  A x, y;
};

template <typename A> CV_HD Point<A> operator-(Point<A> p, Point<A> q) { return {p.x - q.x, p.y - q.y}; }
template <typename A> CV_HD A cross(Point<A> p, Point<A> q) { return p.x * q.y - p.y * q.x; }

constexpr int kMaxCorners = 16;  // 9 of a hull and one more for each of 4 cuts, with room for rounding

template <typename A>
struct Ring {
  Point<A> v[kMaxCorners];
  int n;
};

// 0, or NaN where a coordinate is not finite.
template <typename A>
CV_HD A nothing_or_nan(const Point<A>* points, int n) {
  A sum = A(0);
  for (int i = 0; i < n; ++i) sum += (points[i].x - points[i].x) + (points[i].y - points[i].y);
  return sum;
}

template <typename A, typename T>
CV_HD void load_points(const T* values, int n, Point<A>* points) {
  for (int i = 0; i < n; ++i) points[i] = {static_cast<A>(values[2 * i]), static_cast<A>(values[2 * i + 1])};
}

// The axis-aligned hull.
template <typename A>
struct Box {
  A x_min, x_max, y_min, y_max;
};

// What is NaN meets nothing.
template <typename A>
CV_HD bool boxes_meet(const Box<A>& a, const Box<A>& b) {
  return (a.x_min < b.x_max) & (b.x_min < a.x_max) & (a.y_min < b.y_max) & (b.y_min < a.y_max);
}

template <typename A>
CV_HD Box<A> box_of(const Point<A>* v, int n) {
  Box<A> b{v[0].x, v[0].x, v[0].y, v[0].y};
  for (int i = 1; i < n; ++i) {
    b.x_min = v[i].x < b.x_min ? v[i].x : b.x_min, b.x_max = v[i].x > b.x_max ? v[i].x : b.x_max;
    b.y_min = v[i].y < b.y_min ? v[i].y : b.y_min, b.y_max = v[i].y > b.y_max ? v[i].y : b.y_max;
  }
  const A nothing = nothing_or_nan(v, n);
  b.x_min += nothing, b.x_max += nothing, b.y_min += nothing, b.y_max += nothing;
  return b;
}

// Relative to the first corner, so that the place in the image costs no precision.
template <typename A>
CV_HD A area(const Point<A>* v, int n) {
  A sum = A(0);
  for (int i = 1; i + 1 < n; ++i) sum += cross(v[i] - v[0], v[i + 1] - v[0]);
  return sum / 2;
}

// The corners of the convex hull of n <= kMaxCorners finite points: their indices, from the leftmost (of those the
// one with the smallest y) in the positive direction, without points on edges; of equal points the first. Returns
// how many: one if all points are equal, two if they lie on a line. Andrew's monotone chain.
template <typename A>
CV_HD int convex_hull(const Point<A>* points, int n, int* hull) {
  int order[kMaxCorners];
  for (int i = 0; i < n; ++i) {
    int k = i;
    for (; k > 0; --k) {
      const Point<A> before = points[order[k - 1]], p = points[i];
      if (before.x < p.x || (before.x == p.x && before.y <= p.y)) break;
      order[k] = order[k - 1];
    }
    order[k] = i;
  }
  int kept = 1;  // equal points are neighbours now
  for (int i = 1; i < n; ++i) {
    const Point<A> p = points[order[i]], q = points[order[kept - 1]];
    if (p.x != q.x || p.y != q.y) order[kept++] = order[i];
  }
  hull[0] = order[0];
  if (kept == 1) return 1;
  int stack[2 * kMaxCorners];
  int count = 0, floor = 0;
  for (int step = 0; step < 2 * kept - 1; ++step) {  // there along the one side, back along the other
    const int i = order[step < kept ? step : 2 * kept - 2 - step];
    while (count >= floor + 2 && !(cross(points[stack[count - 1]] - points[stack[count - 2]],
                                         points[i] - points[stack[count - 2]]) > A(0)))
      --count;
    stack[count++] = i;
    if (step == kept - 1) floor = count - 1;
  }
  --count;  // the first again
  for (int i = 0; i < count; ++i) hull[i] = stack[i];
  return count;
}

// A quadrilateral as convex pieces whose areas add up with signs.
template <typename A>
struct Pieces {
  Point<A> v[2][4];
  A sign[2];
  int count, corners;
  A area;
};

template <typename A>
CV_HD void set_piece(Pieces<A>& p, int k, const Point<A>* v, int corners, A sign) {
  for (int i = 0; i < corners; ++i) p.v[k][i] = v[sign < A(0) && i > 0 ? corners - i : i];
  p.sign[k] = sign;
}

template <typename A>
CV_HD Pieces<A> make_pieces(const Point<A>* q) {
  Pieces<A> p;
  const A total = area(q, 4), way = total < A(0) ? A(-1) : A(1);
  bool convex = true;
  for (int i = 0; i < 4; ++i)
    convex = convex && way * cross(q[(i + 1) % 4] - q[i], q[(i + 2) % 4] - q[(i + 1) % 4]) >= A(0);
  p.area = way * total;
  p.count = convex ? 1 : 2;
  p.corners = convex ? 4 : 3;
  if (convex) {
    set_piece(p, 0, q, 4, way);
    p.sign[0] = A(1);
    return p;
  }
  for (int k = 0; k < 2; ++k) {
    const Point<A> triangle[3] = {q[0], q[k + 1], q[k + 2]};
    const A turn = area(triangle, 3) < A(0) ? A(-1) : A(1);
    set_piece(p, k, triangle, 3, turn);
    p.sign[k] = turn * way;
  }
  return p;
}

// What of `in` lies to the left of the line from a to b.
template <typename A>
CV_HD void cut(const Ring<A>& in, Point<A> a, Point<A> b, Ring<A>& out) {
  const Point<A> e = b - a;
  out.n = 0;
  if (in.n == 0) return;
  Point<A> before = in.v[in.n - 1];
  A d_before = cross(e, before - a);
  for (int i = 0; i < in.n; ++i) {
    const Point<A> p = in.v[i];
    const A d = cross(e, p - a);
    if ((d >= A(0)) != (d_before >= A(0)) && out.n < kMaxCorners) {
      const A t = d_before / (d_before - d);
      out.v[out.n++] = {before.x + t * (p.x - before.x), before.y + t * (p.y - before.y)};
    }
    if (d >= A(0) && out.n < kMaxCorners) out.v[out.n++] = p;
    before = p, d_before = d;
  }
}

// The area that a convex polygon shares with a quadrilateral, computed relative to a corner: new corners would
// otherwise be rounded to what far away coordinates can hold.
template <typename A>
CV_HD A shared_area(const Ring<A>& hull, const Pieces<A>& q) {
  const Point<A> origin = hull.v[0];
  A sum = A(0);
  for (int k = 0; k < q.count; ++k) {
    Ring<A> rings[2];
    rings[0].n = hull.n;
    for (int i = 0; i < hull.n; ++i) rings[0].v[i] = hull.v[i] - origin;
    for (int i = 0; i < q.corners; ++i)
      cut(rings[i % 2], q.v[k][i] - origin, q.v[k][i + 1 < q.corners ? i + 1 : 0] - origin, rings[(i + 1) % 2]);
    sum += q.sign[k] * area(rings[q.corners % 2].v, rings[q.corners % 2].n);
  }
  return sum > A(0) ? sum : A(0);
}

// Adds the derivative of the area shared with a quadrilateral to those of the ends of one edge of a hull. What of
// the edge lies on the quadrilateral's outline counts as within.
template <typename A>
CV_HD void add_shared_gradient(Point<A> a, Point<A> b, const Pieces<A>& q, Point<A>& grad_a, Point<A>& grad_b) {
  const Point<A> e = b - a;
  for (int k = 0; k < q.count; ++k) {
    A from = A(0), to = A(1);
    for (int i = 0; i < q.corners; ++i) {
      const Point<A> start = q.v[k][i], side = q.v[k][i + 1 < q.corners ? i + 1 : 0] - start;
      const A at_a = cross(side, a - start), at_b = cross(side, b - start);
      if (at_a < A(0) && at_b < A(0)) to = A(0);
      if ((at_a < A(0)) == (at_b < A(0))) continue;
      const A t = at_a / (at_a - at_b);
      if (at_a < A(0)) from = t > from ? t : from;
      else to = t < to ? t : to;
    }
    if (!(to > from)) continue;
    const A to_b = q.sign[k] * (to * to - from * from) / 2, to_a = q.sign[k] * (to - from) - to_b;
    grad_a.x += e.y * to_a, grad_a.y -= e.x * to_a;
    grad_b.x += e.y * to_b, grad_b.y -= e.x * to_b;
  }
}

template <typename A>
CV_HD A ratio(A part, A whole) {
  return whole > A(0) ? part / whole : A(0);
}

// The derivative of the area of an outline with respect to one corner, from the corners before and after it.
template <typename A>
CV_HD Point<A> area_gradient(Point<A> before, Point<A> after) {
  return {(after.y - before.y) / 2, (before.x - after.x) / 2};
}

}  // namespace cv::polygon
