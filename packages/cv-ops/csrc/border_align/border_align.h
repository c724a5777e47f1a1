#pragma once
// BorderAlign: where the borders of a box sample the map. Shared by both backends; no torch include here.
//
// A map has four groups of channels, for the top, left, bottom and right border of boxes. Each border is sampled
// at pool_size + 1 points, both ends included, in its own group, and the greatest sample of each channel counts.
// Top and left start at the box's corner (x1, y1), bottom and right at (x2, y2) and run back. Coordinates are
// those of the map, integers are pixel centres; samples outside the map are as in common/roi.h. Qiu et al.,
// "BorderDet: Border Feature for Dense Object Detection", ECCV 2020, section 3.2.

#include "../common/roi.h"

namespace cv::border_align {

using roi::Tap;

constexpr int64_t kBorders = 4;  // top, left, bottom, right

struct Params {
  int64_t batch, channels, height, width, boxes, pool_size;  // channels: of one group

  CV_HD int64_t plane() const { return height * width; }
};

// One border of a box: the samples start + i * step, i <= pool_size.
template <typename A>
struct Border {
  A y, x, step_y, step_x;
  bool finite;

  // False outside the map.
  CV_HD bool tap(int64_t i, const Params& p, Tap<A>& ty, Tap<A>& tx) const {
    return roi::make_tap(y + A(i) * step_y, static_cast<int32_t>(p.height), ty) &&
           roi::make_tap(x + A(i) * step_x, static_cast<int32_t>(p.width), tx);
  }
};

// box: x1, y1, x2, y2
template <typename A>
CV_HD Border<A> make_border(const A* box, int64_t border, const Params& p) {
  const bool start = border < 2, horizontal = border % 2 == 0;
  const A sign = start ? A(1) : A(-1);
  const A width = (box[2] - box[0]) / A(p.pool_size), height = (box[3] - box[1]) / A(p.pool_size);
  Border<A> b{start ? box[1] : box[3], start ? box[0] : box[2], horizontal ? A(0) : sign * height,
              horizontal ? sign * width : A(0), true};
  for (int i = 0; i < 4; ++i) b.finite = b.finite && roi::is_moderate(box[i]);
  return b;
}

}  // namespace cv::border_align
