#pragma once
// RoIAlign of rotated boxes: where a bin of a region samples the map. Shared by both backends; no torch here.
//
// A region has a frame of its own, with axes (v, u) through its centre along its height and width. Bins and
// samples are laid out in it as in RoIAlign, and a sample (v, u) is read from the map at
//   y = cy + v cos(angle) - u sin(angle),   x = cx + v sin(angle) + u cos(angle),
// so that a positive angle turns the box counterclockwise as one sees it (y points down); `clockwise` turns it
// the other way. Samples outside the map are as in common/roi.h.
//
// Coordinates: as in RoIAlign, `aligned` shifts the centre by -0.5 so that integer positions are pixel centres;
// without it a region is at least 1 x 1. Xie et al., "Oriented R-CNN", ICCV 2021, section 3.2.

#include "../common/roi.h"

namespace cv::roi_align_rotated {

using roi::Axis;
using roi::Tap;

struct Params : roi::Params {
  bool clockwise;
};

template <typename A>
struct Region {
  int64_t image;  // -1: not an image of the batch, or a number is not finite
  Axis<A> v, u;   // of the region's frame
  A cy, cx, cos, sin;
  A count;  // samples per bin, at least 1
};

template <typename A>
CV_HD Axis<A> make_axis(A length, int64_t bins, const Params& p) {
  Axis<A> a;
  length *= A(p.spatial_scale);
  if (!p.aligned && length < A(1)) length = A(1);
  a.start = -length / A(2);
  a.bin = length / A(bins);
  a.grid = p.sampling_ratio > 0 ? A(p.sampling_ratio) : ceil(a.bin);
  if (!(a.grid > A(0))) a.grid = A(0);
  a.size = 0;
  return a;
}

// box: batch index, centre x, centre y, width, height, angle in radian
template <typename A>
CV_HD Region<A> make_region(const A* box, const Params& p) {
  Region<A> r;
  const A shift = p.aligned ? A(0.5) : A(0), angle = p.clockwise ? -box[5] : box[5];
  r.cx = box[1] * A(p.spatial_scale) - shift;
  r.cy = box[2] * A(p.spatial_scale) - shift;
  r.u = make_axis(box[3], p.pooled_w, p);
  r.v = make_axis(box[4], p.pooled_h, p);
  r.count = r.v.grid * r.u.grid;
  if (!(r.count > A(1))) r.count = A(1);
  const bool finite = roi::is_moderate(r.cx) && roi::is_moderate(r.cy) && roi::is_moderate(box[3]) &&
                      roi::is_moderate(box[4]) && roi::is_moderate(r.u.bin) && roi::is_moderate(r.v.bin) &&
                      roi::is_moderate(angle);
  r.image = finite ? roi::image_of(box[0], p.batch) : int64_t{-1};
  r.cos = finite ? cos(angle) : A(1);
  r.sin = finite ? sin(angle) : A(0);
  return r;
}

// The part [from, to] of a line that may be inside the map: at + t * slope between -2 and size + 1.
template <typename A>
CV_HD void clip(A at, A slope, int64_t size, A& from, A& to) {
  if (slope == A(0)) return;
  const A a = (A(-2) - at) / slope, b = (A(size + 1) - at) / slope;
  const A low = a < b ? a : b, high = a < b ? b : a;
  if (low > from) from = low;
  if (high < to) to = high;
}

// The samples of a bin along v in whose row some sample may be inside the map.
template <typename A>
CV_HD roi::SampleRange rows_inside(const Region<A>& r, int64_t ph, const Params& p) {
  const A y0 = (A(-2) - r.cy) * r.cos, y1 = (A(p.height + 1) - r.cy) * r.cos;
  const A x0 = (A(-2) - r.cx) * r.sin, x1 = (A(p.width + 1) - r.cx) * r.sin;
  const A from = (y0 < y1 ? y0 : y1) + (x0 < x1 ? x0 : x1), to = (y0 < y1 ? y1 : y0) + (x0 < x1 ? x1 : x0);
  return roi::samples_between(r.v.start + A(ph) * r.v.bin, r.v.bin / r.v.grid, r.v.grid, from, to);
}

// For the kernels of common/roi_mean.cuh and common/roi_mean_cpu.h.
template <typename A>
struct Sampler {
  Params p;
  const A* rois;

  CV_HD Region<A> region(int64_t k) const { return make_region(rois + 6 * k, p); }

  template <typename F>
  CV_HD void for_each_sample(const Region<A>& r, int64_t, int64_t ph, int64_t pw, F&& visit) const {
    const roi::SampleRange rows = rows_inside(r, ph, p);
    for (int32_t i = rows.begin; i < rows.end; ++i) {
      const A v = r.v.position(ph, i), y = r.cy + v * r.cos, x = r.cx + v * r.sin;
      A from = A(-4e30), to = A(4e30);
      if (r.u.grid >= roi::kManySamples) {
        clip(y, -r.sin, p.height, from, to);
        clip(x, r.cos, p.width, from, to);
        if (from > to) continue;
      }
      const roi::SampleRange columns =
          roi::samples_between(r.u.start + A(pw) * r.u.bin, r.u.bin / r.u.grid, r.u.grid, from, to);
      for (int32_t j = columns.begin; j < columns.end; ++j) {
        const A u = r.u.position(pw, j);
        Tap<A> ty, tx;
        if (roi::make_tap(y - u * r.sin, static_cast<int32_t>(p.height), ty) &&
            roi::make_tap(x + u * r.cos, static_cast<int32_t>(p.width), tx))
          visit(ty, tx);
      }
    }
  }
};

}  // namespace cv::roi_align_rotated
