#pragma once
// Which element goes where. No torch include here.
//
// Every pixel (h, w) has a mask of (mask_h, mask_w) weights, mask element (i, j) being about the pixel
// (h + i - half_h, w + j - half_w) (Zhao et al., "PSANet: Point-wise Spatial Attention Network", 2018). The output
// has, for each pair of pixels, the weight of one about the other, or 0 where the mask does not reach:
//
//   collect:     out[n, (y, x), h, w] = in[n, (i, j), h, w]     y = h + i - half_h,  x = w + j - half_w
//   distribute:  out[n, (h, w), y, x] = in[n, (i, j), h, w]
//
// With n, h and y fixed (and thereby i), this maps a matrix of masks (j, w) to a matrix of pairs (x, w) or (w, x).

#include <cstdint>

#include "../common/macros.h"

namespace cv::psa_mask {

struct Geometry {
  int64_t n, h, w, mask_h, mask_w;
  bool distribute;

  CV_HD int64_t half_h() const { return (mask_h - 1) / 2; }
  CV_HD int64_t half_w() const { return (mask_w - 1) / 2; }

  // Where matrix row j, column w of the masks of row `h_at` begins and how far apart its rows are.
  CV_HD int64_t masks_at(int64_t n_at, int64_t h_at, int64_t i) const {
    return ((n_at * mask_h + i) * mask_w * h + h_at) * w;
  }
  CV_HD int64_t masks_row() const { return h * w; }

  // The matrix of pairs of row h_at with row y: element (x, w) is at pairs_at + x * pairs_x + w * pairs_w.
  CV_HD int64_t pairs_at(int64_t n_at, int64_t h_at, int64_t y) const {
    return distribute ? ((n_at * h + h_at) * w * h + y) * w : ((n_at * h + y) * w * h + h_at) * w;
  }
  CV_HD int64_t pairs_x() const { return distribute ? 1 : h * w; }
  CV_HD int64_t pairs_w() const { return distribute ? h * w : 1; }
};

}  // namespace cv::psa_mask
