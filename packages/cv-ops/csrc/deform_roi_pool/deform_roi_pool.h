#pragma once
// Deformable RoI pooling: where a bin of a region samples the map, and how the samples depend on its offset.
// Shared by both backends; no torch include here.
//
// Regions, bins and samples are those of RoIAlign with pixel centres at integer positions, but each bin is moved
// as a whole: by gamma * offset_x * width of the region along x, and likewise along y. The output is the mean of
// the bin's samples. Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.2, equations 5 and 6
// (gamma is 0.1 there).
//
// A sample between two pixels has the slope (high - low) along an axis; where the border is read it has none.

#include "../common/roi.h"
#include "../roi_align/roi_align.h"

namespace cv::deform_roi_pool {

using roi::Axis;
using roi::Tap;
using roi_align::Region;

struct Params : roi::Params {
  double gamma;
};

// For the kernels of common/roi_mean.cuh and common/roi_mean_cpu.h.
template <typename A>
struct Sampler {
  Params p;
  const A* rois;
  const A* offset;  // (K, {x, y}, pooled_h, pooled_w); null: none

  CV_HD Region<A> region(int64_t k) const { return roi_align::make_region(rois + 5 * k, p); }

  CV_HD A gain_y(const Region<A>& r) const { return A(p.gamma) * r.y.bin * A(p.pooled_h); }
  CV_HD A gain_x(const Region<A>& r) const { return A(p.gamma) * r.x.bin * A(p.pooled_w); }

  // visit(Tap y, Tap x, bool slope_y, bool slope_x) for each sample inside the map. An offset that is not finite
  // moves its bin off the map.
  template <typename F>
  CV_HD void for_each_slope(const Region<A>& r, int64_t k, int64_t ph, int64_t pw, F&& visit) const {
    Axis<A> y = r.y, x = r.x;
    if (offset != nullptr) {
      const A* at = offset + 2 * k * p.bins() + ph * p.pooled_w + pw;
      x.start += gain_x(r) * at[0];
      y.start += gain_y(r) * at[p.bins()];
      if (!roi::is_moderate(x.start) || !roi::is_moderate(y.start)) return;
    }
    roi::for_each_tap(y, ph, [&](int32_t sy, const Tap<A>& ty) {
      const bool slope_y = y.position(ph, sy) >= A(0) && ty.high > ty.low;
      roi::for_each_tap(x, pw, [&](int32_t sx, const Tap<A>& tx) {
        visit(ty, tx, slope_y, x.position(pw, sx) >= A(0) && tx.high > tx.low);
      });
    });
  }

  template <typename F>
  CV_HD void for_each_sample(const Region<A>& r, int64_t k, int64_t ph, int64_t pw, F&& visit) const {
    for_each_slope(r, k, ph, pw, [&](const Tap<A>& ty, const Tap<A>& tx, bool, bool) { visit(ty, tx); });
  }
};

}  // namespace cv::deform_roi_pool
