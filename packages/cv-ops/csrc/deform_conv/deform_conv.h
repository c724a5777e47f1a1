#pragma once
// Deformable convolution: where a kernel tap samples the input, and how that sample depends on it.
//
// Output pixel (oh, ow) and kernel tap (kh, kw) read the input x at the fractional position
//   y = oh * stride_h - pad_h + kh * dilation_h + offset_y,   x likewise,
// bilinearly, with zeros outside the map, times the modulation mask (v1: 1). What follows is an
// ordinary convolution over the samples. Dai et al., "Deformable Convolutional Networks", ICCV 2017
// (equations 2 to 4); Zhu et al., "Deformable ConvNets v2", CVPR 2019 (equation 1).
//
// Shared by both backends; no torch include here.

#include <cstdint>

#include "../common/macros.h"

namespace cv::deform_conv {

struct Geometry {
  int64_t batch, channels, height, width;
  int64_t out_channels, out_h, out_w;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t groups, deform_groups;

  CV_HD int64_t taps() const { return kernel_h * kernel_w; }
  CV_HD int64_t out_plane() const { return out_h * out_w; }
  CV_HD int64_t pixels() const { return batch * out_plane(); }
  CV_HD int64_t group_channels() const { return channels / groups; }
  CV_HD int64_t group_out_channels() const { return out_channels / groups; }
  CV_HD int64_t deform_channels() const { return channels / deform_groups; }
  CV_HD int64_t group_columns() const { return taps() * group_channels(); }  // length of one GEMM row

  // offset: (batch, deform_groups, taps, {y, x}, out_h, out_w); add out_plane() for the x component.
  CV_HD int64_t offset_index(int64_t b, int64_t dg, int64_t tap, int64_t pixel) const {
    return (((b * deform_groups + dg) * taps() + tap) * 2) * out_plane() + pixel;
  }
  // mask: (batch, deform_groups, taps, out_h, out_w)
  CV_HD int64_t mask_index(int64_t b, int64_t dg, int64_t tap, int64_t pixel) const {
    return ((b * deform_groups + dg) * taps() + tap) * out_plane() + pixel;
  }
};

// The four neighbours of a position, in the order (y0, x0), (y0, x1), (y1, x0), (y1, x1).
enum Corner : uint32_t { kTopLeft = 1, kTopRight = 2, kBottomLeft = 4, kBottomRight = 8 };

template <typename A>
struct Sample {
  int32_t row, col;  // y0, x0; -1 where only the bottom or right neighbours are inside the map
  uint32_t corners;  // Corner bits of the neighbours inside the map; 0: the sample is zero
  A ly, lx;          // fractional part of the position

  CV_HD A weight(int corner) const {
    return (corner & 2 ? ly : A(1) - ly) * (corner & 1 ? lx : A(1) - lx);
  }
  CV_HD int64_t neighbour(int corner, int64_t width) const {  // pixel of the map
    return (static_cast<int64_t>(row) + (corner >> 1)) * width + col + (corner & 1);
  }
};

// The position is (row + offset_y, col + offset_x). The integer part is taken off the offset before the
// two are added: a float sum of a large row and a small offset would lose the offset's last bits.
// Offsets that are not finite sample nothing.
template <typename A>
CV_HD Sample<A> locate(int64_t row, int64_t col, A offset_y, A offset_x, int64_t height, int64_t width) {
  Sample<A> s{0, 0, 0, A(0), A(0)};
  const A far = A(1 << 30);
  if (!(offset_y > -far && offset_y < far && offset_x > -far && offset_x < far)) return s;
  int32_t fy = static_cast<int32_t>(offset_y), fx = static_cast<int32_t>(offset_x);
  fy -= A(fy) > offset_y;  // floor
  fx -= A(fx) > offset_x;
  s.ly = offset_y - A(fy);
  s.lx = offset_x - A(fx);
  const int64_t y0 = row + fy, x0 = col + fx;
  s.row = static_cast<int32_t>(y0);
  s.col = static_cast<int32_t>(x0);
  // A position on the line y = -1 or x = -1 has no weight inside the map, and, as in the published
  // operators, no gradient either.
  const bool top = y0 >= 0 && y0 < height, left = x0 >= 0 && x0 < width;
  const bool bottom = y0 + 1 >= 0 && y0 + 1 < height && (y0 >= 0 || s.ly > A(0));
  const bool right = x0 + 1 >= 0 && x0 + 1 < width && (x0 >= 0 || s.lx > A(0));
  s.corners = (top && left ? kTopLeft : 0u) | (top && right ? kTopRight : 0u) |
              (bottom && left ? kBottomLeft : 0u) | (bottom && right ? kBottomRight : 0u);
  return s;
}

// Gradients of one sample in closed form. d[i] is the dot product over channels of the gradient of the
// column with neighbour i (0 outside the map), so that  sample . grad = sum_i weight(i) * d[i].
template <typename A>
struct SampleGrad {
  A mask, offset_y, offset_x;
};

template <typename A>
CV_HD SampleGrad<A> sample_grad(const Sample<A>& s, A mask, const A d[4]) {
  const A hy = A(1) - s.ly, hx = A(1) - s.lx;
  return SampleGrad<A>{hy * (hx * d[0] + s.lx * d[1]) + s.ly * (hx * d[2] + s.lx * d[3]),
                       mask * (hx * (d[2] - d[0]) + s.lx * (d[3] - d[1])),
                       mask * (hy * (d[1] - d[0]) + s.ly * (d[3] - d[2]))};
}

}  // namespace cv::deform_conv
