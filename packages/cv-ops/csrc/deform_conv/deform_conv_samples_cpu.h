#pragma once
// Samples of deformable convolution on the CPU, one output pixel at a time: read, and the three gradients.
//
// The input is read as (N, H, W, C), so that a sample is four runs of channels and vectorises whatever the offsets
// are.

#include <algorithm>
#include <cstdint>

#include "../common/vec.h"
#include "deform_conv_columns.h"

namespace cv::deform_conv {

// Inputs in the type of the arithmetic, layouts as the comments say.
template <typename T>
struct Problem {
  Geometry g;
  const T* input;   // (N, H, W, C)
  const T* offset;  // see Geometry::offset_index
  const T* mask;    // see Geometry::mask_index; null: all ones
  const T* zeros;   // C zeros, read instead of a neighbour outside the map
};

// One sample of a block, kept between sampling and scattering.
template <typename T>
struct Tap {
  Sample<T> sample;
  T mask;
};

// visit(first channel, count, index into the columns) for each run of channels of [begin, end) that is
// contiguous in the columns.
template <typename F>
CV_HD void for_each_run(const ColumnLayout& columns, int64_t pixel, int64_t tap, int64_t begin, int64_t end, F&& visit) {
  if (end <= columns.group_channels) return visit(begin, end - begin, columns.index(pixel, tap, begin));
  for (int64_t c = begin; c < end;) {
    const int64_t group_end = (c / columns.group_channels + 1) * columns.group_channels;
    const int64_t stop = group_end < end ? group_end : end;
    visit(c, stop - c, columns.index(pixel, tap, c));
    c = stop;
  }
}

// out[c] = sum_i w[i] * rows[i][c]
template <typename T>
CV_HD void blend(T* CV_RESTRICT out, const T* const rows[4], const T w[4], int64_t n) {
  const T *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  const T w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
  using V = Vec<T>;
  int64_t c = 0;
  for (; c + V::size <= n; c += V::size) {
    const V top = w0 * V::load(r0 + c) + w1 * V::load(r1 + c);
    (top + w2 * V::load(r2 + c) + w3 * V::load(r3 + c)).store(out + c);
  }
  for (; c < n; ++c) out[c] = w0 * r0[c] + w1 * r1[c] + w2 * r2[c] + w3 * r3[c];
}

template <typename T>
CV_HD void neighbour_rows(const Problem<T>& p, int64_t batch, const Sample<T>& s, const T* rows[4]) {
  const T* image = p.input + batch * p.g.height * p.g.width * p.g.channels;
  for (int i = 0; i < 4; ++i)
    rows[i] = s.corners >> i & 1 ? image + s.neighbour(i, p.g.width) * p.g.channels : p.zeros;
}

// Kernel taps [begin, end).
struct Taps {
  int64_t begin, end;
};

// visit(deform group, tap, sample, mask) for the samples of output pixel `pixel` of image `batch` at `taps`.
template <typename T, typename F>
CV_HD void for_each_sample(const Problem<T>& p, int64_t batch, int64_t pixel, Taps taps, F&& visit) {
  const Geometry& g = p.g;
  const int64_t row0 = pixel / g.out_w * g.stride_h - g.pad_h, col0 = pixel % g.out_w * g.stride_w - g.pad_w;
  const int64_t plane = g.out_plane();
  for (int64_t dg = 0; dg < g.deform_groups; ++dg) {
    const T* offset = p.offset + g.offset_index(batch, dg, taps.begin, pixel);
    const T* mask = p.mask ? p.mask + g.mask_index(batch, dg, 0, pixel) : nullptr;
    int64_t kh = taps.begin / g.kernel_w, kw = taps.begin % g.kernel_w;
    for (int64_t tap = taps.begin; tap < taps.end; ++tap, offset += 2 * plane) {
      const Sample<T> s = locate(row0 + kh * g.dilation_h, col0 + kw * g.dilation_w, offset[0], offset[plane],
                                 g.height, g.width);
      visit(dg, tap, s, mask ? mask[tap * plane] : T(1));
      if (++kw == g.kernel_w) kw = 0, ++kh;
    }
  }
}

// columns, of `taps` alone, of pixel `i` of a block, which is output pixel `pixel` of image `batch`
template <typename T>
CV_HD void sample_pixel(const Problem<T>& p, int64_t batch, int64_t pixel, Taps taps, int64_t i,
                        const ColumnLayout& layout, T* columns) {
  const int64_t channels = p.g.deform_channels();
  for_each_sample(p, batch, pixel, taps, [&](int64_t dg, int64_t tap, const Sample<T>& s, T mask) {
    const T* rows[4];
    neighbour_rows(p, batch, s, rows);
    T w[4];
    for (int k = 0; k < 4; ++k) w[k] = s.corners >> k & 1 ? mask * s.weight(k) : T(0);
    for_each_run(layout, i, tap - taps.begin, dg * channels, (dg + 1) * channels, [&](int64_t c, int64_t n, int64_t at) {
      if (s.corners == 0) {
        std::fill_n(columns + at, n, T(0));
        return;
      }
      const T* here[4] = {rows[0] + c, rows[1] + c, rows[2] + c, rows[3] + c};
      blend(columns + at, here, w, n);
    });
  });
}

// grad_offset and grad_mask of one pixel from the gradient of its columns
template <typename T>
CV_HD void grad_pixel(const Problem<T>& p, int64_t batch, int64_t pixel, int64_t i, const ColumnLayout& layout,
                      const T* grad_columns, T* grad_offset, T* grad_mask) {
  const Geometry& g = p.g;
  const int64_t channels = g.deform_channels();
  for_each_sample(p, batch, pixel, {0, g.taps()}, [&](int64_t dg, int64_t tap, const Sample<T>& s, T mask) {
    T d[4] = {T(0), T(0), T(0), T(0)};
    if (s.corners != 0) {
      const T* rows[4];
      neighbour_rows(p, batch, s, rows);
      for_each_run(layout, i, tap, dg * channels, (dg + 1) * channels, [&](int64_t c, int64_t n, int64_t at) {
        const T* here[4] = {rows[0] + c, rows[1] + c, rows[2] + c, rows[3] + c};
        dot_rows(d, grad_columns + at, here, n);
      });
    }
    const SampleGrad<T> grad = sample_grad(s, mask, d);
    T* to = grad_offset + g.offset_index(batch, dg, tap, pixel);
    to[0] = grad.offset_y;
    to[g.out_plane()] = grad.offset_x;
    if (grad_mask) grad_mask[g.mask_index(batch, dg, tap, pixel)] = grad.mask;
  });
}

// A share of the rows of a map: every `bands`th pair of rows.
struct Band {
  uint32_t index, bands;

  CV_HD bool has(int32_t row) const { return static_cast<uint32_t>(row) / 2 % bands == index; }
  // Corner bits that lie in the band, for a sample whose top row is `row`.
  CV_HD uint32_t corners(int32_t row) const {
    if (bands == 1) return 15;
    return (has(row) ? kTopLeft | kTopRight : 0u) | (has(row + 1) ? kBottomLeft | kBottomRight : 0u);
  }
};

// Adds a block's column gradients into grad_input (N, H, W, C), for the channels [begin, end) and one band.
template <typename T>
CV_HD void scatter(const Geometry& g, const Tap<T>* taps, int64_t first_pixel, int64_t pixels,
                   const ColumnLayout& layout, const T* grad_columns, int64_t begin, int64_t end, Band band,
                   T* grad_input) {
  const int64_t channels = g.deform_channels(), plane = g.out_plane();
  for (int64_t i = 0; i < pixels; ++i) {
    T* image = grad_input + (first_pixel + i) / plane * g.height * g.width * g.channels;
    for (int64_t dg = begin / channels; dg * channels < end; ++dg) {
      const Tap<T>* tap = taps + (i * g.deform_groups + dg) * g.taps();
      const int64_t from = std::max(begin, dg * channels), to = std::min(end, (dg + 1) * channels);
      for (int64_t k = 0; k < g.taps(); ++k, ++tap) {
        const Sample<T>& s = tap->sample;
        const uint32_t mine = s.corners & band.corners(s.row);
        if (mine == 0) continue;
        for_each_run(layout, i, k, from, to, [&](int64_t c, int64_t n, int64_t column) {
          for (int corner = 0; corner < 4; ++corner)
            if (mine >> corner & 1)
              add_scaled(image + s.neighbour(corner, g.width) * g.channels + c, grad_columns + column,
                         tap->mask * s.weight(corner), n);
        });
      }
    }
  }
}

// --- a block of pixels, from `first` on ---------------------------------------------------------------

template <typename T>
CV_HD void sample_pixels(const Problem<T>& p, int64_t first, int64_t pixels, Taps taps, const ColumnLayout& layout,
                         T* columns) {
  const int64_t plane = p.g.out_plane();
  for (int64_t i = 0; i < pixels; ++i)
    sample_pixel(p, (first + i) / plane, (first + i) % plane, taps, i, layout, columns);
}

template <typename T>
CV_HD void grad_pixels(const Problem<T>& p, int64_t first, int64_t pixels, const ColumnLayout& layout,
                       const T* grad_columns, T* grad_offset, T* grad_mask) {
  const int64_t plane = p.g.out_plane();
  for (int64_t i = 0; i < pixels; ++i)
    grad_pixel(p, (first + i) / plane, (first + i) % plane, i, layout, grad_columns, grad_offset, grad_mask);
}

// kept (pixels, deform groups, taps): for scatter()
template <typename T>
CV_HD void keep_samples(const Problem<T>& p, int64_t first, int64_t pixels, Tap<T>* kept) {
  const int64_t plane = p.g.out_plane();
  for (int64_t i = 0; i < pixels; ++i)
    for_each_sample(p, (first + i) / plane, (first + i) % plane, {0, p.g.taps()},
                    [&](int64_t, int64_t, const Sample<T>& s, T mask) { *kept++ = {s, mask}; });
}

}  // namespace cv::deform_conv
