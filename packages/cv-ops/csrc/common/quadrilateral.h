#pragma once
// Quadrilaterals by their corners, in either direction, and how much two of them overlap; for host and device. No
// torch include here. The geometry is in polygon.h.

#include "polygon.h"

namespace cv {

template <typename A>
struct Quadrilateral {
  polygon::Point<A> v[4];
  A area;  // NaN: a coordinate, or the area, is not finite
  polygon::Box<A> box;
};

// From 8 numbers: x and y of each corner, around the outline.
template <typename A, typename T>
CV_HD Quadrilateral<A> make_quadrilateral(const T* values) {
  Quadrilateral<A> q;
  polygon::load_points(values, 4, q.v);
  q.box = polygon::box_of(q.v, 4);
  const A area = polygon::area(q.v, 4), nothing = (area - area) + polygon::nothing_or_nan(q.v, 4);
  q.area = (area < A(0) ? -area : area) + nothing;
  return q;
}

// Intersection over union, or (kForeground) over the area of p, from the pieces of both. For boxes that meet.
template <bool kForeground, typename A>
CV_HD A overlap_of_pieces(const polygon::Pieces<A>& p, const polygon::Pieces<A>& q) {
  A shared = A(0);
  for (int k = 0; k < p.count; ++k) {
    polygon::Ring<A> ring;
    ring.n = p.corners;
    for (int i = 0; i < p.corners; ++i) ring.v[i] = p.v[k][i];
    shared += p.sign[k] * polygon::shared_area(ring, q);
  }
  const A smaller = p.area < q.area ? p.area : q.area;
  shared = shared > A(0) ? shared : A(0);
  shared = shared < smaller ? shared : smaller;
  return polygon::ratio(shared, kForeground ? p.area : p.area + q.area - shared);
}

// The same of any two: 0 where they are apart, NaN where one is not finite.
template <bool kForeground, typename A>
CV_HD A overlap(const Quadrilateral<A>& p, const Quadrilateral<A>& q) {
  if (!polygon::boxes_meet(p.box, q.box)) return (p.area - p.area) + (q.area - q.area);
  return overlap_of_pieces<kForeground>(polygon::make_pieces(p.v), polygon::make_pieces(q.v));
}

}  // namespace cv
