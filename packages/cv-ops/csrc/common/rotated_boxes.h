#pragma once
// Rectangles at an angle and the area that two of them share; for host and device. No torch include here.
//
// A box is (x, y, w, h, angle): its width lies along (cos, sin), its height along (-sin, cos). In an image,
// where y points down, a positive angle turns clockwise; who counts the other way negates the angle.
//
// Shared area. In the frame of the first box, that box is the axis-aligned rectangle R = [-a, a] x [-b, b].
// Moving each point to the nearest point of R (clamping x and y) leaves the inside of R alone and collapses
// everything else onto its border, so the clamped outline of the second box encloses exactly the shared
// area, which is the integral of clamp(x) d clamp(y) along that outline. On an edge both coordinates are
// linear, so clamp(y) moves on one interval only, and there clamp(x) is constant, linear, constant.
//
// Unlike clipping, this has no cases (identical boxes, shared edges and corners, parallel sides are nothing
// special), no branches, and depends continuously on the corners: an error in the last bits stays one.

#include <math.h>

#include "macros.h"

namespace cv {

template <typename A>
struct RotatedBox {
  A x, y;          // centre
  A a, b;          // half of width and height
  A cos, sin;
  A area;          // 0: empty (a side that is not positive). NaN: a number of the box, or its area, is not finite
  A ex, ey;        // half sides of the axis-aligned hull, rounded up; -infinity where there is no area
};

// Always in double: it is done once per box, and sine and cosine are then the same everywhere but in the
// last bit.
template <typename A>
CV_HD RotatedBox<A> make_rotated_box(double x, double y, double w, double h, double angle) {
  const A width = static_cast<A>(w), height = static_cast<A>(h);
  const bool empty = !(width > A(0) && height > A(0));
  A area = empty ? A(0) : width * height;
  area += (area - area) + static_cast<A>((x - x) + (y - y) + (w - w) + (h - h) + (angle - angle));  // 0 or NaN
  RotatedBox<A> r;
  r.x = static_cast<A>(x), r.y = static_cast<A>(y);
  r.a = width / 2, r.b = height / 2;
  const double c = ::cos(angle), s = ::sin(angle);
  r.cos = static_cast<A>(c), r.sin = static_cast<A>(s);
  r.area = area;
  // Room for the rounding of the centre and of these sums, so that no test of hulls loses an overlap.
  const A room = sizeof(A) == 4 ? A(4.8e-7) : A(9e-16);
  const A ac = static_cast<A>(fabs(c)), as = static_cast<A>(fabs(s)), inf = A(HUGE_VAL);
  const bool none = !(area > A(0));
  r.ex = none ? -inf : r.a * ac + r.b * as + room * (r.a + r.b + static_cast<A>(fabs(x)));
  r.ey = none ? -inf : r.a * as + r.b * ac + room * (r.a + r.b + static_cast<A>(fabs(y)));
  return r;
}

// Whether the axis-aligned hulls meet; false where a box has no area. Boxes of which they do not, share nothing.
template <typename A>
CV_HD bool hulls_meet(A x1, A y1, A ex1, A ey1, A x2, A y2, A ex2, A ey2) {
  const A dx = x1 - x2, dy = y1 - y2;
  return (dx < A(0) ? -dx : dx) <= ex1 + ex2 && (dy < A(0) ? -dy : dy) <= ey1 + ey2;
}

namespace rotated {

// Comparisons that drop a NaN: what is not above lo is lo.
template <typename A> CV_HD A clamp(A v, A lo, A hi) {
  const A above = v > lo ? v : lo;
  return above < hi ? above : hi;
}

// The integral of clamp(x) d clamp(y) along the edge from (x, y) by `length` in the unit direction (dx, dy);
// ix and iy are 1 / dx and 1 / dy. An edge along an axis has an infinite reciprocal: a bound is then infinite
// or NaN, and any value within the edge gives the same integral.
template <typename A>
CV_HD A edge(A x, A y, A dx, A dy, A ix, A iy, A length, A a, A b) {
  const A y1 = (-b - y) * iy, y2 = (b - y) * iy, x1 = (-a - x) * ix, x2 = (a - x) * ix;
  const A from = clamp(y1 < y2 ? y1 : y2, A(0), length), to = clamp(y1 < y2 ? y2 : y1, A(0), length);
  const A in = clamp(x1 < x2 ? x1 : x2, from, to), out = clamp(x1 < x2 ? x2 : x1, from, to);
  const A x_from = clamp(x + from * dx, -a, a), x_in = clamp(x + in * dx, -a, a);
  const A x_out = clamp(x + out * dx, -a, a), x_to = clamp(x + to * dx, -a, a);
  return dy * ((in - from) * x_from + (out - in) * (x_in + x_out) / 2 + (to - out) * x_to);
}

}  // namespace rotated

namespace rotated {

template <typename A> CV_HD A absolute(A v) { return v < A(0) ? -v : v; }

// The area of q within p.
template <typename A>
CV_HD A area_within(const RotatedBox<A>& p, const RotatedBox<A>& q) {
  // q in the frame of p: its centre and its unit axes (c, s) and (-s, c).
  const A dx = q.x - p.x, dy = q.y - p.y;
  const A x = dx * p.cos + dy * p.sin, y = dy * p.cos - dx * p.sin;
  const A c = p.cos * q.cos + p.sin * q.sin, s = p.cos * q.sin - p.sin * q.cos;
  const A ux = q.a * c, uy = q.a * s, vx = -q.b * s, vy = q.b * c;
  const A ic = A(1) / c, is = A(1) / s;
  const A w = 2 * q.a, h = 2 * q.b;
  const A area = edge(x - ux - vx, y - uy - vy, c, s, ic, is, w, p.a, p.b) +
                 edge(x + ux - vx, y + uy - vy, -s, c, -is, ic, h, p.a, p.b) +
                 edge(x + ux + vx, y + uy + vy, -c, -s, -ic, -is, w, p.a, p.b) +
                 edge(x - ux + vx, y - uy + vy, s, -c, is, -ic, h, p.a, p.b);
  // Exactly 0 where a side of one box has all of the other beyond it: the sum above leaves its rounding.
  const A touch = A(1) - (sizeof(A) == 4 ? A(9.6e-7) : A(1.8e-15));
  const A ac = absolute(c), as = absolute(s);
  const bool apart = (absolute(x) >= touch * (p.a + q.a * ac + q.b * as)) |
                     (absolute(y) >= touch * (p.b + q.a * as + q.b * ac)) |
                     (absolute(x * c + y * s) >= touch * (q.a + p.a * ac + p.b * as)) |
                     (absolute(y * c - x * s) >= touch * (q.b + p.a * as + p.b * ac));
  return apart ? A(0) : clamp(area, A(0), q.area);
}

}  // namespace rotated

// The area that two boxes share; both must have a finite area. The larger box gives the frame: what is cut is
// then the smaller one's outline, whose lengths are known to its own precision.
template <typename A>
CV_HD A shared_area(const RotatedBox<A>& p, const RotatedBox<A>& q) {
  const bool swap = q.area > p.area;
  const RotatedBox<A> large{swap ? q.x : p.x,     swap ? q.y : p.y,     swap ? q.a : p.a,
                            swap ? q.b : p.b,     swap ? q.cos : p.cos, swap ? q.sin : p.sin,
                            swap ? q.area : p.area, A(0), A(0)};
  const RotatedBox<A> small{swap ? p.x : q.x,     swap ? p.y : q.y,     swap ? p.a : q.a,
                            swap ? p.b : q.b,     swap ? p.cos : q.cos, swap ? p.sin : q.sin,
                            swap ? p.area : q.area, A(0), A(0)};
  return rotated::area_within(large, small);
}

// Intersection over union, or (kForeground) over the area of p. Both boxes must have a finite area.
template <bool kForeground, typename A>
CV_HD A rotated_overlap(const RotatedBox<A>& p, const RotatedBox<A>& q) {
  const A shared = shared_area(p, q);
  return shared / (kForeground ? p.area : p.area + q.area - shared);
}

}  // namespace cv
