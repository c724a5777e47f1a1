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
using roi::Patch;
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

// Adds one region's gradient to a patch of runs: bins first to a row of the map, which then goes to its pixels. `grad`
// is (bins, C), `sums` is scratch (pooled_w, kChannelBlock).
template <typename T>
CV_HD void spread_region(const GradientWeights<T>& r, const T* grad, const Params& p, const Patch<T>& patch, T* sums,
                         const T** rows) {
  for (int64_t d = 0; d < r.y.distinct(); ++d) {
    if (!patch.has(r.y.pixels[d])) continue;
    const int32_t y0 = r.by_row.begin[d], ny = r.by_row.begin[d + 1] - y0;
    T* row = patch.data + (r.y.pixels[d] - patch.begin) * p.width * p.channels;
    for (int64_t c = 0; c < p.channels; c += kChannelBlock) {
      const int64_t count = std::min(kChannelBlock, p.channels - c);
      for (int64_t pw = 0; pw < p.pooled_w; ++pw) {
        for (int32_t i = 0; i < ny; ++i)
          rows[i] = grad + (r.by_row.bin[y0 + i] * p.pooled_w + pw) * p.channels + c;
        weighted_sum(sums + pw * count, rows, r.by_row.weight.data() + y0, ny, count);
      }
      for (int64_t j = 0; j < r.x.distinct(); ++j) {
        const int32_t x0 = r.by_column.begin[j], nx = r.by_column.begin[j + 1] - x0;
        for (int32_t i = 0; i < nx; ++i) rows[i] = sums + r.by_column.bin[x0 + i] * count;
        add_weighted_sum(row + r.x.pixels[j] * p.channels + c, rows, r.by_column.weight.data() + x0, nx, count);
      }
    }
  }
}

// grad (K, bins, C)
template <typename T>
void spread(const T* grad, const T* rois, int64_t count, const Params& p, double work, const roi::MapGrad<T>& to) {
  const auto new_adder = [&] {
    return [&, sums = std::vector<T>(p.pooled_w * std::min(p.channels, kChannelBlock)),
            rows = std::vector<const T*>(std::max(p.pooled_h, p.pooled_w))](
               const GradientWeights<T>& r, int64_t k, const Patch<T>& patch) mutable {
      vectorized([&] { spread_region(r, grad + k * p.bins() * p.channels, p, patch, sums.data(), rows.data()); });
    };
  };
  add_weighted(rois, count, p, to, work, new_adder);
}

}  // namespace cv::roi_align
