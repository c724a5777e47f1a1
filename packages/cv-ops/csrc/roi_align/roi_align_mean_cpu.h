#pragma once
// The mean over a region's sample grid is a product of two axes: out = Wy * map * Wx', with a few non-zero
// weights per bin (samples that read the same pixel are added up first). So a pixel of a region is read
// about once, instead of four times per sample. Maps are read as (N, H, W, C) and every loop runs over
// channels, except for few regions on a large contiguous map, where turning the map would cost more.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../common/isa.h"
#include "../common/roi_cpu.h"
#include "../common/transpose.h"
#include "../common/vec.h"
#include "roi_align.h"

namespace cv::roi_align {

using roi::kChannelBlock;
using roi::OutputGrad;
using roi::Partition;
using torch::stable::parallel_for;

constexpr int64_t kRegionsAtOnce = 256;  // whose weights are kept in the backward pass: bounds memory

// The weights of one axis: for each bin a short list of pixels.
template <typename T>
struct AxisWeights {
  std::vector<int32_t> pixel;  // of entry e, or its place in `pixels` once compact() was called
  std::vector<T> weight;
  std::vector<int32_t> begin;   // entries of bin b are [begin[b], begin[b + 1])
  std::vector<int32_t> pixels;  // distinct pixels, filled by compact()

  int64_t entries() const { return static_cast<int64_t>(pixel.size()); }

  void build(const Axis<T>& axis, int64_t bins, T scale) {
    pixel.clear();
    weight.clear();
    pixel.reserve(4 * bins);  // two samples in a bin read four pixels
    weight.reserve(4 * bins);
    begin.reserve(bins + 1);
    begin.assign(1, 0);
    for (int64_t b = 0; b < bins; ++b) {
      for_each_tap(axis, b, [&](int32_t, const Tap<T>& t) {
        add(t.low, t.weight_low * scale);
        add(t.high, t.weight_high * scale);
      });
      begin.push_back(static_cast<int32_t>(pixel.size()));
    }
  }

  // Numbers the distinct pixels, in order of appearance. `slots` is scratch: all -1 before and after.
  void compact(std::vector<int32_t>& slots) {
    pixels.clear();
    for (int32_t& p : pixel) {
      if (slots[p] < 0) {
        slots[p] = static_cast<int32_t>(pixels.size());
        pixels.push_back(p);
      }
      p = slots[p];
    }
    for (const int32_t p : pixels) slots[p] = -1;
  }

 private:
  // Samples come in order, so a pixel that was read before is one of the last two.
  void add(int32_t p, T w) {
    const size_t n = pixel.size(), first = static_cast<size_t>(begin.back());
    for (size_t e = n; e > first && e + 2 > n; --e) {
      if (pixel[e - 1] == p) {
        weight[e - 1] += w;
        return;
      }
    }
    pixel.push_back(p);
    weight.push_back(w);
  }
};

template <typename T>
struct RegionWeights {
  int64_t image = -1;
  AxisWeights<T> y, x;

  void build(const T* roi, const Params& p, std::vector<int32_t>& slots) {
    const Region<T> r = make_region(roi, p);
    image = r.image;
    if (image < 0) return;
    y.build(r.y, p.pooled_h, T(1) / r.count);
    x.build(r.x, p.pooled_w, T(1));
    x.compact(slots);
  }
};

// out (bins, count), rows `stride` apart: the channels [c, c + count) of one region. `columns` is scratch.
template <typename T>
CV_HD void pool_region(const RegionWeights<T>& r, const T* image, const Params& p, int64_t c, int64_t count, T* columns,
                       const T** rows, T* out, int64_t stride) {
  const int64_t distinct = static_cast<int64_t>(r.x.pixels.size());
  for (int64_t ph = 0; ph < p.pooled_h; ++ph) {
    const int32_t y0 = r.y.begin[ph], ny = r.y.begin[ph + 1] - y0;
    for (int64_t j = 0; j < distinct; ++j) {
      for (int32_t i = 0; i < ny; ++i)
        rows[i] = image + (static_cast<int64_t>(r.y.pixel[y0 + i]) * p.width + r.x.pixels[j]) * p.channels + c;
      weighted_sum(columns + j * count, rows, r.y.weight.data() + y0, ny, count);
    }
    for (int64_t pw = 0; pw < p.pooled_w; ++pw) {
      const int32_t x0 = r.x.begin[pw], nx = r.x.begin[pw + 1] - x0;
      for (int32_t i = 0; i < nx; ++i) rows[i] = columns + r.x.pixel[x0 + i] * count;
      weighted_sum(out + (ph * p.pooled_w + pw) * stride, rows, r.x.weight.data() + x0, nx, count);
    }
  }
}

// x (N, H, W, C); out (K, C, bins), or (K, bins, C) if nhwc
template <typename T>
void pool_channels_last(const T* x, const T* rois, int64_t count, const Params& p, T* out, bool nhwc) {
  const int64_t block = std::min(p.channels, kChannelBlock), blocks = (p.channels + block - 1) / block;
  parallel_for(0, count * blocks, roi::grain_of_regions(p, block), [&](int64_t begin, int64_t end) {
    std::vector<int32_t> slots(p.width, -1);
    std::vector<T> columns, transposed(nhwc ? 0 : p.bins() * block);
    std::vector<const T*> rows;
    RegionWeights<T> r;
    int64_t region = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task / blocks, c = task % blocks * block, n = std::min(block, p.channels - c);
      if (k != region) {
        r.build(rois + 5 * k, p, slots);
        columns.resize(r.x.pixels.size() * block);
        rows.resize(r.image < 0 ? 0 : std::max(r.x.entries(), r.y.entries()));
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

// x (N, C, H, W), out (K, C, bins): plane by plane, for few regions on a large map
template <typename T>
void pool_planes(const T* x, const T* rois, int64_t count, const Params& p, T* out) {
  const int64_t block = 16, blocks = (p.channels + block - 1) / block;
  parallel_for(0, count * blocks, roi::grain_of_regions(p, block), [&](int64_t begin, int64_t end) {
    std::vector<int32_t> slots(p.width, -1);
    RegionWeights<T> r;
    int64_t region = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task / blocks, first = task % blocks * block;
      if (k != region) r.build(rois + 5 * k, p, slots), region = k;
      for (int64_t c = first; c < std::min(first + block, p.channels); ++c) {
        T* to = out + (k * p.channels + c) * p.bins();
        std::fill_n(to, p.bins(), r.image < 0 ? std::numeric_limits<T>::quiet_NaN() : T(0));
        if (r.image < 0) continue;
        const T* plane = x + (r.image * p.channels + c) * p.plane();
        for (int64_t ph = 0; ph < p.pooled_h; ++ph, to += p.pooled_w) {
          for (int32_t i = r.y.begin[ph]; i < r.y.begin[ph + 1]; ++i) {
            const T* row = plane + static_cast<int64_t>(r.y.pixel[i]) * p.width;
            for (int64_t pw = 0; pw < p.pooled_w; ++pw) {
              T sum = T(0);
              for (int32_t j = r.x.begin[pw]; j < r.x.begin[pw + 1]; ++j)
                sum += r.x.weight[j] * row[r.x.pixels[r.x.pixel[j]]];
              to[pw] += r.y.weight[i] * sum;
            }
          }
        }
      }
    }
  });
}

// Pixels that all regions read together, roughly.
template <typename T>
double pixels_read(const T* rois, int64_t count, const Params& p) {
  const auto length = [](const Axis<T>& a, int64_t bins) {
    const double samples = 2.0 * static_cast<double>(a.grid) * static_cast<double>(bins);
    return std::min(samples, std::abs(static_cast<double>(a.bin)) * static_cast<double>(bins) + 2.0 * bins);
  };
  double total = 0;
  for (int64_t k = 0; k < count; ++k) {
    const Region<T> r = make_region(rois + 5 * k, p);
    if (r.image >= 0)
      total += std::min(length(r.y, p.pooled_h), p.height + 2.0 * p.pooled_h) *
               std::min(length(r.x, p.pooled_w), p.width + 2.0 * p.pooled_w);
  }
  return total;
}

// Adds one region's gradient into `image` (H, W, C), for the channels [c, c + count) and the rows of a band.
template <typename T>
CV_HD void spread_region(const RegionWeights<T>& r, const T* grad, int64_t stride, const Params& p, int64_t c,
                         int64_t count, int64_t band, int64_t bands, T* columns, T* image) {
  const int64_t distinct = static_cast<int64_t>(r.x.pixels.size());
  for (int64_t ph = 0; ph < p.pooled_h; ++ph) {
    std::fill_n(columns, distinct * count, T(0));
    for (int64_t pw = 0; pw < p.pooled_w; ++pw)
      for (int32_t j = r.x.begin[pw]; j < r.x.begin[pw + 1]; ++j)
        add_scaled(columns + r.x.pixel[j] * count, grad + (ph * p.pooled_w + pw) * stride, r.x.weight[j], count);
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
void spread(const OutputGrad<T>& grad, const T* rois, int64_t count, const Params& p, T* grad_input) {
  const Partition part = Partition::make(p.channels, tag<T>{});
  std::vector<RegionWeights<T>> weights(std::min(count, kRegionsAtOnce));
  for (int64_t first = 0; first < count; first += kRegionsAtOnce) {
    const int64_t n = std::min(kRegionsAtOnce, count - first);
    parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
      std::vector<int32_t> slots(p.width, -1);
      for (int64_t k = begin; k < end; ++k) weights[k].build(rois + 5 * (first + k), p, slots);
    });
    parallel_for(0, part.blocks * part.bands, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> columns(p.width * part.block), buffer(p.bins() * part.block);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t c = task % part.blocks * part.block, size = std::min(part.block, p.channels - c);
        vectorized([&] {
          for (int64_t k = 0; k < n; ++k) {
            const RegionWeights<T>& r = weights[k];
            if (r.image < 0) continue;
            int64_t stride;
            const T* g = grad.block(p, first + k, c, size, buffer.data(), stride);
            spread_region(r, g, stride, p, c, size, task / part.blocks, part.bands, columns.data(),
                          grad_input + r.image * p.plane() * p.channels);
          }
        });
      }
    });
  }
}

}  // namespace cv::roi_align
