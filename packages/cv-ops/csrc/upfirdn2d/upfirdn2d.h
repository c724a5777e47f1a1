#pragma once
// Upsampling, FIR filtering and downsampling of one axis. No torch include here.
//
// The chain "put up - 1 zeros behind each sample, pad (or crop), filter, keep every down-th" is one sum:
//
//   out[o] = sum over k of f[k] x[(o down + k - pad) / up],   the terms whose division leaves no rest
//
// where f is the kernel flipped (a convolution) and x is 0 outside. A negative pad, which crops, needs no
// case of its own. The weight of x[i] in out[o] is f[i up + pad - o down], so the gradient is
//
//   dx[i] = sum over o of f[i up + pad - o down] g[o] = sum over k of f[K-1-k] g[(i up + k - pad') / down]
//
// with pad' = K - 1 - pad: the same operator with up and down exchanged and the kernel the other way round.

#include <cstdint>

#include "../common/macros.h"

namespace cv::upfirdn2d {

CV_HD int64_t floor_div(int64_t a, int64_t b) {  // b > 0
  const int64_t q = a / b;
  return q - (a % b < 0 ? 1 : 0);
}

struct Axis {
  int64_t in, out, up, down, pad, taps;

  static Axis make(int64_t in, int64_t up, int64_t down, int64_t pad0, int64_t pad1, int64_t taps) {
    const int64_t out = floor_div(in * up + pad0 + pad1 - taps, down) + 1;
    // One sample, or one output, has no next one: the step to it may be beyond memory and takes long to walk. Any
    // other gives the same sum; equal steps are the shortest walk.
    const int64_t step_in = in > 1 ? up : out > 1 ? down : 1;
    return {in, out, step_in, out > 1 ? down : step_in, pad0, taps};
  }

  // The first tap of output o that meets a sample, and that sample; the next ones are tap + up and sample + 1.
  CV_HD int64_t first_sample(int64_t o) const { return -floor_div(pad - o * down, up); }  // rounds up
  CV_HD int64_t first_tap(int64_t o) const { return first_sample(o) * up + pad - o * down; }
};

}  // namespace cv::upfirdn2d
