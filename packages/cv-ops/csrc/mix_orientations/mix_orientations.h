#pragma once
// The second half of rotation-invariant RoIAlign: channels of pooled regions move on by the angle of their box.
// Shared by both backends; no torch include here.
//
// Channel c N + o is feature c at orientation o of N. With angle N / (2 pi) = ind + l, 0 <= l < 1,
//   out[o] = (1 - l) in[o - ind] + l in[o - ind + 1],   orientations modulo N.
// So l leads to the neighbour on the other side than the next whole turn, in[o - ind - 1], would be. That is how
// the published operator is and how networks were trained with it: tests/test_riroi_align_rotated.py has its known
// answer. Han et al., "ReDet", CVPR 2021, section 3.3, where the sign of the neighbour is not said.

#include <cmath>
#include <cstdint>

#include "../common/macros.h"

namespace cv::mix_orientations {

struct Params {
  int64_t regions, features, orientations, inner;  // of the layout (regions, features, orientations, inner)
  bool clockwise, transposed;                      // transposed: the gradient, which goes back where values came from
};

template <typename A>
struct Turn {
  int64_t first, second;  // added to an orientation: where it is read from, modulo N; both in [0, N)
  A weight_first, weight_second;
};

// box: batch index, centre x, centre y, width, height, angle in radian. An angle that is not finite gives NaN.
template <typename A>
CV_HD Turn<A> make_turn(const A* box, const Params& p) {
  const int64_t n = p.orientations;
  const A turns = (p.clockwise ? -box[5] : box[5]) * (A(n) / A(6.283185307179586476925));
  const A whole = floor(turns), part = turns - whole, wrapped = whole - A(n) * floor(whole / A(n));
  const int64_t ind = wrapped > A(0) && wrapped < A(n) ? static_cast<int64_t>(wrapped) : 0;
  Turn<A> t;
  t.first = p.transposed ? ind : (n - ind) % n;
  t.second = (t.first + (p.transposed ? n - 1 : 1)) % n;
  t.weight_first = A(1) - part;
  t.weight_second = part;
  return t;
}

}  // namespace cv::mix_orientations
