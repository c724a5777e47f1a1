#pragma once
// Regions of interest: what the operators that pool them share. Both backends; no torch include here.
//
// A region is divided into pooled_h x pooled_w bins, a bin into grid_h x grid_w cells, and the map is read
// bilinearly at the middle of each cell. Integer positions are pixel centres. A position may lie up to one
// pixel outside the centres' range and then reads the border; further out it reads zero (and counts).

#include <cstdint>

#include "macros.h"
#if !defined(__CUDACC__)
#include <cmath>
#endif

namespace cv::roi {

struct Params {
  int64_t batch, channels, height, width, pooled_h, pooled_w, sampling_ratio;
  double spatial_scale;
  bool aligned;

  CV_HD int64_t bins() const { return pooled_h * pooled_w; }
  CV_HD int64_t plane() const { return height * width; }
};

// One axis of a region.
template <typename A>
struct Axis {
  A start, bin, grid;  // in pixels; samples per bin, a whole number kept as A since it may be huge
  int32_t size;        // of the map

  CV_HD A position(int64_t b, int64_t sample) const { return start + A(b) * bin + (A(sample) + A(0.5)) * bin / grid; }
};

// The samples [begin, end) of a bin that may lie inside the map: a huge region costs no more than the map is
// large. One sample more on either side guards against rounding; make_tap() decides.
struct SampleRange {
  int32_t begin, end;
};

constexpr int kManySamples = 64;  // fewer are not worth asking which of them are inside

// Of the samples at base + (s + 1/2) * step, s < grid, those between `from` and `to`.
template <typename A>
CV_HD SampleRange samples_between(A base, A step, A grid, A from, A to) {
  if (grid < A(kManySamples) || step == A(0)) return SampleRange{0, static_cast<int32_t>(grid)};
  const A s0 = (from - base) / step, s1 = (to - base) / step;
  A low = (s0 < s1 ? s0 : s1) - A(2), high = (s0 < s1 ? s1 : s0) + A(2);
  const A limit = A(1 << 30);
  if (!(low > A(0))) low = A(0);
  if (!(high < grid)) high = grid;
  if (!(high > low) || !(low < limit)) return SampleRange{0, 0};
  if (high > limit) high = limit;
  return SampleRange{static_cast<int32_t>(low), static_cast<int32_t>(high)};
}

template <typename A>
CV_HD SampleRange samples_inside(const Axis<A>& a, int64_t bin) {
  return samples_between(a.start + A(bin) * a.bin, a.bin / a.grid, a.grid, A(-1), A(a.size));
}

// Linear interpolation along one axis: two pixels (the same one at the border) and their weights.
template <typename A>
struct Tap {
  int32_t low, high;
  A weight_low, weight_high;
};

template <typename A>
CV_HD bool make_tap(A position, int32_t size, Tap<A>& t) {
  if (!(position >= A(-1) && position <= A(size))) return false;
  if (position < A(0)) position = A(0);
  t.low = static_cast<int32_t>(position);
  if (t.low >= size - 1) {
    t.low = t.high = size - 1;
    t.weight_low = A(1);
    t.weight_high = A(0);
  } else {
    t.high = t.low + 1;
    t.weight_high = position - A(t.low);
    t.weight_low = A(1) - t.weight_high;
  }
  return true;
}

// visit(sample, tap) for each sample of a bin, along one axis, that lies inside the map
template <typename A, typename F>
CV_HD void for_each_tap(const Axis<A>& a, int64_t bin, F&& visit) {
  const SampleRange range = samples_inside(a, bin);
  for (int32_t s = range.begin; s < range.end; ++s) {
    Tap<A> t;
    if (make_tap(a.position(bin, s), a.size, t)) visit(s, t);
  }
}

// The index of the image a region belongs to, or -1 if it is none of the batch.
template <typename A>
CV_HD int64_t image_of(A index, int64_t batch) {
  return index >= A(0) && index < A(batch) ? static_cast<int64_t>(index) : int64_t{-1};
}

// NaN fails too; twice the bound is finite in float32.
template <typename A>
CV_HD bool is_moderate(A v) {
  return v > A(-1e30) && v < A(1e30);
}

}  // namespace cv::roi
