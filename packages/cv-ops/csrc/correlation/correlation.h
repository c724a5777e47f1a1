#pragma once
// Correlation of two maps: how well each place of one matches the places around it in the other (FlowNet,
// Dosovitskiy et al., 2015). No torch include here.
//
// With y = h stride - padding + i dilation and a displacement d = (p - max_displacement) dilation_patch, the
// same along x, and 0 outside of both maps:
//
//   out[p, q, h, w] = sum over c, i, j of first[c, y, x] second[c, y + d_p, x + d_q]
//
// Let G[p, q, y, x] be the sum of the gradients g[p, q, h, w] of all windows that cover (y, x). Then
//
//   d first[c, y, x]  = sum over p, q of G[p, q, y, x] second[c, y + d_p, x + d_q]
//   d second[c, y, x] = sum over p, q of G[p, q, y - d_p, x - d_q] first[c, y - d_p, x - d_q]
//
// which is one form: a sum over displacements (+d or -d) of a weight of the place times the other map.

#include <cstdint>

#include "../common/macros.h"

namespace cv::correlation {

struct Params {
  int64_t batch, channels, height, width;
  int64_t kernel, displacement, stride, padding, dilation, dilation_patch;

  CV_HD int64_t patch() const { return 2 * displacement + 1; }
  CV_HD int64_t shift(int64_t p) const { return (p - displacement) * dilation_patch; }
  CV_HD int64_t position(int64_t out, int64_t tap) const { return out * stride - padding + tap * dilation; }
  CV_HD int64_t out_size(int64_t in) const {
    const int64_t room = in + 2 * padding - ((kernel - 1) * dilation + 1);
    return room < 0 ? 0 : room / stride + 1;
  }
  // The output whose tap reads `at`, or -1.
  CV_HD int64_t output_of(int64_t at, int64_t tap, int64_t outputs) const {
    const int64_t from = at + padding - tap * dilation;
    return from < 0 || from % stride != 0 || from / stride >= outputs ? -1 : from / stride;
  }
};

}  // namespace cv::correlation
