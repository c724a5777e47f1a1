#pragma once
// Multi-scale deformable attention: where a sample reads a map, and how its value depends on the place.
//
// Head m of query q is the sum over levels l and points p of  weight * value_l(location),  value_l being the map
// of level l read bilinearly, with zeros outside. Locations are relative to the map: (0, 0) is its top left
// corner and (1, 1) its bottom right, so that x * width - 0.5 counts in pixel centres.
// Zhu et al., "Deformable DETR", ICLR 2021, equation 3.
//
// Bilinear weights are a product of two axes, so an axis is treated alone. Shared by both backends; no torch
// include here.

#include <cstdint>

#include "../common/macros.h"

namespace cv::multi_scale_deform_attn {

struct Params {
  int64_t batch, keys, heads, channels;  // value: (batch, keys, heads, channels)
  int64_t queries, levels, points;       // locations: (batch, queries, heads, levels, points, {x, y})

  CV_HD int64_t samples() const { return levels * points; }  // of one head of one query
  CV_HD int64_t rows() const { return batch * queries * heads; }
  CV_HD int64_t key_stride() const { return heads * channels; }
};

// The part of the keys that is the map of one level, row by row.
struct Level {
  int64_t start, height, width;

  // Sizes that float32 does not hold exactly are refused: a position might then be rounded past the end.
  CV_HD bool fits(int64_t keys) const {
    const int64_t limit = int64_t{1} << 24;
    return start >= 0 && height >= 0 && width >= 0 && height <= limit && width <= limit && start <= keys &&
           height * width <= keys - start;
  }
};

// One axis of a sample: pixels `low` and low + 1. `in_…` is 1 for a pixel inside the map, else 0, and the weights
// are 0 outside. No branches, so that a loop over samples vectorises. A place that is not finite is outside.
template <typename A>
struct Tap {
  int32_t low;
  A in_low, in_high, low_weight, high_weight;
};

template <typename A>
CV_HD Tap<A> make_tap(A location, A size) {
  A position = location * size - A(0.5);
  position = position > A(-2) ? position : A(-2);  // NaN too
  position = position < size ? position : size;
  Tap<A> t;
  t.low = static_cast<int32_t>(position);
  t.low -= static_cast<int32_t>(static_cast<A>(t.low) > position);  // floor
  const A low = static_cast<A>(t.low), fraction = position - low;
  t.in_low = static_cast<A>(static_cast<int32_t>(low >= A(0)) & static_cast<int32_t>(low < size));
  t.in_high = static_cast<A>(static_cast<int32_t>(low >= A(-1)) & static_cast<int32_t>(low + A(1) < size));
  t.low_weight = t.in_low * (A(1) - fraction);
  t.high_weight = t.in_high * fraction;
  return t;
}

// Derivatives of  weight * sum_ij wy_i wx_j d_ij,  d_ij being the dot product over channels of the output's gradient
// with the pixel in row i and column j (0 outside the map).
template <typename A>
struct SampleGrad {
  A weight, x, y;
};

template <typename A>
CV_HD SampleGrad<A> sample_grad(const Tap<A>& y, const Tap<A>& x, A weight, A height, A width, const A d[4]) {
  const A top = x.low_weight * d[0] + x.high_weight * d[1], bottom = x.low_weight * d[2] + x.high_weight * d[3];
  const A left = y.low_weight * d[0] + y.high_weight * d[2], right = y.low_weight * d[1] + y.high_weight * d[3];
  return SampleGrad<A>{y.low_weight * top + y.high_weight * bottom, weight * width * (x.in_high * right - x.in_low * left),
                       weight * height * (y.in_high * bottom - y.in_low * top)};
}

}  // namespace cv::multi_scale_deform_attn
