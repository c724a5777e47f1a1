#pragma once
// RoIPool: which pixels belong to a bin of a region. Shared by both backends; no torch include here.
//
// A box's corners are scaled and rounded to pixels, half away from zero, and both corners belong to the region:
// it is max(end - start + 1, 1) pixels long. Bin i of n covers the pixels from floor(i * length / n) up to, not
// including, ceil((i + 1) * length / n), counted from the region's start and cut to the map: neighbouring bins
// may share a pixel. Girshick, "Fast R-CNN", ICCV 2015, section 2.1.
//
// The borders are computed in whole numbers: ceil of a rounded quotient may be one pixel too far.

#include "../common/roi.h"

namespace cv::roi_pool {

using roi::Params;

struct Span {  // pixels [begin, end)
  int32_t begin, end;

  CV_HD bool empty() const { return end <= begin; }
};

struct Axis {
  int64_t start, length;  // in pixels of the map
  int32_t size;           // of the map

  CV_HD Span span(int64_t bin, int64_t bins) const {
    return Span{cut(start + divide(bin * length, bins)), cut(start + divide((bin + 1) * length + bins - 1, bins))};
  }

 private:
  CV_HD int32_t cut(int64_t at) const { return static_cast<int32_t>(at < 0 ? 0 : (at > size ? size : at)); }

  static CV_HD int64_t divide(int64_t a, int64_t b) {  // a >= 0, b > 0; a 64-bit division is slow on a GPU
    constexpr int64_t limit = int64_t{1} << 32;
    return a < limit && b < limit ? static_cast<int64_t>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b)) : a / b;
  }
};

struct Region {
  int64_t image;  // -1: not an image of the batch, or a coordinate is not finite
  Axis y, x;
};

// Far outside any map, and small enough that the product with a number of bins fits 64 bits.
template <typename A>
CV_HD int64_t to_pixel(A v) {
  constexpr A far = A(int64_t{1} << 36);
  v = round(v);
  return static_cast<int64_t>(v < -far ? -far : (v > far ? far : v));
}

template <typename A>
CV_HD Axis make_axis(A low, A high, int64_t size) {
  const int64_t start = to_pixel(low), length = to_pixel(high) - start + 1;
  return Axis{start, length > 1 ? length : 1, static_cast<int32_t>(size)};
}

// box: batch index, x1, y1, x2, y2
template <typename A>
CV_HD Region make_region(const A* box, const Params& p) {
  A at[4];
  bool finite = true;
  for (int i = 0; i < 4; ++i) {
    at[i] = box[i + 1] * A(p.spatial_scale);
    finite = finite && roi::is_moderate(at[i]);
    if (!finite) at[i] = A(0);
  }
  return Region{finite ? roi::image_of(box[0], p.batch) : int64_t{-1}, make_axis(at[1], at[3], p.height),
                make_axis(at[0], at[2], p.width)};
}

}  // namespace cv::roi_pool
