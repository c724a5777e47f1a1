#pragma once
// Rotated feature alignment: to each pixel of a map adds the map's values at the points of a box. Shared by both
// backends; no torch include here.
//
// Yang et al., "R3Det: Refined Single-Stage Detector with Feature Refinement for Rotating Object", AAAI 2021, section
// 3.3. A pixel has one box (y, x, w, h, angle): its row comes first. The points are its centre and, of five, its
// corners; the width lies along (cos, sin) in (x, y). Samples outside the map are as in common/roi.h.

#include "../common/roi.h"

namespace cv::rotated_feature_align {

using roi::Tap;

struct Params {
  int64_t batch, channels, height, width, points;  // points: 1 or 5
  double spatial_scale;

  CV_HD int64_t plane() const { return height * width; }
};

template <typename A>
struct Points {
  A y, x;    // centre
  A uy, ux;  // from there to the middle of the right side
  A vy, vx;  // and to that of the lower side
  bool finite;

  // The k-th point; false outside the map.
  CV_HD bool tap(int64_t k, const Params& p, Tap<A>& ty, Tap<A>& tx) const {
    const A along = k == 0 ? A(0) : k < 3 ? A(1) : A(-1), across = k == 0 ? A(0) : k % 2 == 1 ? A(1) : A(-1);
    return roi::make_tap(y + along * uy + across * vy, static_cast<int32_t>(p.height), ty) &&
           roi::make_tap(x + along * ux + across * vx, static_cast<int32_t>(p.width), tx);
  }
};

template <typename A>
CV_HD Points<A> make_points(const A* box, const Params& p) {
  const A scale = static_cast<A>(p.spatial_scale);
  Points<A> out{box[0] * scale, box[1] * scale, A(0), A(0), A(0), A(0), true};
  for (int i = 0; i < 5; ++i) out.finite = out.finite && roi::is_moderate(box[i]);
  if (p.points == 1 || !out.finite) return out;
  const A half_w = box[2] * scale / 2, half_h = box[3] * scale / 2;
  const A c = cos(box[4]), s = sin(box[4]);
  out.uy = half_w * s, out.ux = half_w * c;
  out.vy = half_h * c, out.vx = -half_h * s;
  return out;
}

}  // namespace cv::rotated_feature_align
