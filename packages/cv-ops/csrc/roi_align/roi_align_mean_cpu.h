#pragma once
// The mean over a region's sample grid is a product of two axes: out = Wy * map * Wx', with a few non-zero
// weights per bin (samples that read the same pixel are added up first). So a pixel of a region is read
// about once, instead of four times per sample.
//
// Two ways lead there. Maps that are read as (N, H, W, C) have long runs of channels, over which every loop
// goes. Where channels are few, or regions read so little of a contiguous map that turning it would cost more,
// some channels at a time are gathered from wherever they lie: roi_align_gather_cpu.h.

#include <algorithm>
#include <limits>
#include <vector>

#include "../common/isa.h"
#include "../common/roi_cpu.h"
#include "../common/transpose.h"
#include "../common/vec.h"
#include "roi_align_weights_cpu.h"

namespace cv::roi_align {

using roi::kChannelBlock;
using roi::OutputGrad;
using roi::Partition;
using torch::stable::parallel_for;

// out (bins, count), rows `stride` apart: the channels [c, c + count) of one region. `columns` is scratch.
template <typename T>
CV_HD void pool_region(const RegionWeights<T>& r, const T* image, const Params& p, int64_t c, int64_t count, T* columns,
                       const T** rows, T* out, int64_t stride) {
  const int64_t distinct = r.x.distinct();
  for (int64_t ph = 0; ph < p.pooled_h; ++ph) {
    const int32_t y0 = r.y.begin[ph], ny = r.y.begin[ph + 1] - y0;
    for (int64_t j = 0; j < distinct; ++j) {
      for (int32_t i = 0; i < ny; ++i)
        rows[i] = image + (static_cast<int64_t>(r.y.pixel[y0 + i]) * p.width + r.x.pixels[j]) * p.channels + c;
      weighted_sum(columns + j * count, rows, r.y.weight.data() + y0, ny, count);
    }
    for (int64_t pw = 0; pw < p.pooled_w; ++pw) {
      const int32_t x0 = r.x.begin[pw], nx = r.x.begin[pw + 1] - x0;
      for (int32_t i = 0; i < nx; ++i) rows[i] = columns + r.x.place[x0 + i] * count;
      weighted_sum(out + (ph * p.pooled_w + pw) * stride, rows, r.x.weight.data() + x0, nx, count);
    }
  }
}

// x (N, H, W, C); out (K, C, bins), or (K, bins, C) if nhwc
template <typename T>
void pool_channels_last(const T* x, const T* rois, int64_t count, const Params& p, double work, T* out, bool nhwc) {
  const int64_t block = std::min(p.channels, kChannelBlock), blocks = (p.channels + block - 1) / block;
  parallel_for(0, count * blocks, roi::grain_of_tasks(work, count * blocks), [&](int64_t begin, int64_t end) {
    std::vector<T> columns, transposed(nhwc ? 0 : p.bins() * block);
    std::vector<const T*> rows;
    RegionWeights<T> r;
    int64_t region = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task / blocks, c = task % blocks * block, n = std::min(block, p.channels - c);
      if (k != region) {
        r.build(rois + 5 * k, p);
        columns.resize(r.x.distinct() * block);
        rows.resize(std::max(r.x.entries(), r.y.entries()));
        region = k;
      }
      T* to = out + k * p.channels * p.bins() + (nhwc ? c : c * p.bins());
      if (r.image < 0) {
        const T nan = std::numeric_limits<T>::quiet_NaN();
        if (nhwc)
          for (int64_t b = 0; b < p.bins(); ++b) std::fill_n(to + b * p.channels, n, nan);
        else
          std::fill_n(to, n * p.bins(), nan);
        continue;
      }
      const T* image = x + r.image * p.plane() * p.channels;
      vectorized([&] {
        if (nhwc) {
          pool_region(r, image, p, c, n, columns.data(), rows.data(), to, p.channels);
        } else {
          pool_region(r, image, p, c, n, columns.data(), rows.data(), transposed.data(), n);
          transpose_small(to, transposed.data(), p.bins(), n);
        }
      });
    }
  });
}

// Adds one region's gradient into `image` (H, W, C), for the channels [c, c + count) and the rows of a band.
template <typename T>
CV_HD void spread_region(const RegionWeights<T>& r, const T* grad, int64_t stride, const Params& p, int64_t c,
                         int64_t count, int64_t band, int64_t bands, T* columns, T* image) {
  const int64_t distinct = r.x.distinct();
  for (int64_t ph = 0; ph < p.pooled_h; ++ph) {
    std::fill_n(columns, distinct * count, T(0));
    for (int64_t pw = 0; pw < p.pooled_w; ++pw)
      for (int32_t j = r.x.begin[pw]; j < r.x.begin[pw + 1]; ++j)
        add_scaled(columns + r.x.place[j] * count, grad + (ph * p.pooled_w + pw) * stride, r.x.weight[j], count);
    for (int32_t i = r.y.begin[ph]; i < r.y.begin[ph + 1]; ++i) {
      if (bands > 1 && r.y.pixel[i] % bands != band) continue;
      T* row = image + static_cast<int64_t>(r.y.pixel[i]) * p.width * p.channels + c;
      for (int64_t j = 0; j < distinct; ++j)
        add_scaled(row + static_cast<int64_t>(r.x.pixels[j]) * p.channels, columns + j * count, r.y.weight[i], count);
    }
  }
}

// grad_input (N, H, W, C), zero before
template <typename T>
void spread(const OutputGrad<T>& grad, const T* rois, int64_t count, const Params& p, double work, T* grad_input) {
  const Partition part = Partition::make(p.channels, tag<T>{});
  const auto new_adder = [&] {
    return [&, columns = std::vector<T>(p.width * part.block),
            buffer = std::vector<T>(grad.nhwc ? 0 : p.bins() * part.block)](
               const RegionWeights<T>& r, int64_t k, int64_t c, int64_t size, int64_t band, int64_t bands) mutable {
      columns.resize(std::max<size_t>(columns.size(), r.x.distinct() * part.block));
      vectorized([&] {
        int64_t stride;
        const T* g = grad.block(p, k, c, size, buffer.data(), stride);
        spread_region(r, g, stride, p, c, size, band, bands, columns.data(),
                      grad_input + r.image * p.plane() * p.channels);
      });
    };
  };
  add_weighted(rois, count, p, part, work, new_adder);
}

}  // namespace cv::roi_align
