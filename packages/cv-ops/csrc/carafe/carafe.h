#pragma once
// CARAFE: upsampling in which each output pixel is a weighted sum of a window of the input, with weights (masks) of
// its own:
//   out[c, i, j] = sum over (ky, kx) of  mask[g, ky, kx, i, j] * x[c, i / s + ky - r, j / s + kx - r],
// r = kernel / 2, zeros outside, s the upsampling ratio and g the group of channel c.
// Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019, equations 2 and 3.
//
// The gradient of a pixel of x gathers from the kernel x kernel windows that contain it, s x s outputs each; so all
// three directions are sums that one thread makes, in a fixed order. Shared by both backends; no torch include here.

#include <cstdint>

#include "../common/macros.h"

namespace cv::carafe {

struct Params {
  int64_t batch, channels, height, width, kernel, groups, scale;

  CV_HD int64_t taps() const { return kernel * kernel; }
  CV_HD int64_t group_channels() const { return channels / groups; }
  CV_HD int64_t out_height() const { return height * scale; }
  CV_HD int64_t out_width() const { return width * scale; }
  CV_HD int64_t plane() const { return height * width; }
  CV_HD int64_t out_plane() const { return plane() * scale * scale; }
  // mask: (batch, groups, taps, out_height, out_width)
  CV_HD int64_t mask_index(int64_t image, int64_t group, int64_t tap, int64_t out_pixel) const {
    return ((image * groups + group) * taps() + tap) * out_plane() + out_pixel;
  }
  CV_HD bool inside(int64_t row, int64_t column) const {
    return row >= 0 && row < height && column >= 0 && column < width;
  }
};

}  // namespace cv::carafe
