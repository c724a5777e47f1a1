#pragma once
// Pooling of some channels at a time, gathered from wherever they lie: for maps of few channels in either layout,
// and for contiguous maps of which regions read so little that turning them would cost more.
//
// A pixel row is pooled along x first; rows are read by several bins, and weighted, after that.

#include <limits>
#include <vector>

#include "../common/isa.h"
#include "../common/roi_cpu.h"
#include "roi_align_weights_cpu.h"

namespace cv::roi_align {

using roi::for_each_lanes;
using roi::kLanes;
using roi::Patch;
using roi::Strides;

// N channels of a region; `rows` is scratch (distinct rows, pooled_w, N)
template <int64_t N, typename T>
CV_HD void gather_region(const RegionWeights<T>& r, const T* from, Strides in, const Params& p, T* CV_RESTRICT rows,
                         T* to, Strides out) {
  const int64_t bins = p.pooled_w;
  for (int64_t d = 0; d < r.y.distinct(); ++d) {
    const T* row = from + r.y.pixels[d] * p.width * in.item;
    for (int64_t pw = 0; pw < bins; ++pw) {
      T sum[N] = {};
      for (int32_t e = r.x.begin[pw]; e < r.x.begin[pw + 1]; ++e) {
        const T* at = row + r.x.pixel[e] * in.item;
        const T weight = r.x.weight[e];
        for (int64_t i = 0; i < N; ++i) sum[i] += weight * at[i * in.channel];
      }
      for (int64_t i = 0; i < N; ++i) rows[(d * bins + pw) * N + i] = sum[i];
    }
  }
  for (int64_t ph = 0; ph < p.pooled_h; ++ph) {
    for (int64_t pw = 0; pw < bins; ++pw) {
      T sum[N] = {};
      for (int32_t e = r.y.begin[ph]; e < r.y.begin[ph + 1]; ++e) {
        const T* row = rows + (r.y.place[e] * bins + pw) * N;
        for (int64_t i = 0; i < N; ++i) sum[i] += r.y.weight[e] * row[i];
      }
      for (int64_t i = 0; i < N; ++i) to[(ph * bins + pw) * out.item + i * out.channel] = sum[i];
    }
  }
}

// x (N, C, H, W) and out (K, C, bins), or (N, H, W, C) and (K, bins, C) if nhwc
template <typename T>
void gather(const T* x, const T* rois, int64_t count, const Params& p, double work, T* out, bool nhwc) {
  const int64_t block = kLanes, blocks = (p.channels + block - 1) / block, size = p.channels * p.bins();
  const Strides in = Strides::of(nhwc, p.channels, p.plane()), to = Strides::of(nhwc, p.channels, p.bins());
  torch::stable::parallel_for(0, count * blocks, roi::grain_of_tasks(work, count * blocks),
                              [&](int64_t begin, int64_t end) {
    RegionWeights<T> r;
    std::vector<T> rows;
    int64_t region = -1;
    vectorized([&] {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t k = task / blocks, c = task % blocks * block, last = std::min(c + block, p.channels);
        if (k != region) {
          r.build(rois + 5 * k, p);
          rows.resize(std::max<size_t>(rows.size(), r.image < 0 ? 0 : r.y.distinct() * p.pooled_w * block));
          region = k;
        }
        T* at = out + k * size;
        if (r.image < 0) {
          for (int64_t i = c; i < last; ++i)
            for (int64_t b = 0; b < p.bins(); ++b)
              at[i * to.channel + b * to.item] = std::numeric_limits<T>::quiet_NaN();
          continue;
        }
        const T* image = x + r.image * p.plane() * p.channels;
        for_each_lanes(c, last, [&](auto n, int64_t first) {
          gather_region<n()>(r, image + first * in.channel, in, p, rows.data(), at + first * to.channel, to);
        });
      }
    });
  });
}

// Adds the gradient of N channels of a region to a patch, whose pointer is `to`. `rows` is scratch (distinct rows,
// pooled_w, N), `columns` (distinct columns, N).
template <int64_t N, typename T>
CV_HD void scatter_region(const RegionWeights<T>& r, const T* grad, Strides out, const Params& p,
                          const Patch<T>& patch, T* CV_RESTRICT rows, T* CV_RESTRICT columns, T* to) {
  const int64_t bins = p.pooled_w, distinct = r.x.distinct();
  const Strides in = patch.strides;
  for (int64_t i = 0; i < r.y.distinct() * bins * N; ++i) rows[i] = T(0);
  for (int64_t ph = 0; ph < p.pooled_h; ++ph) {
    const int32_t first = r.y.begin[ph], last = r.y.begin[ph + 1];
    bool reaches = false;
    for (int32_t e = first; e < last; ++e) reaches |= patch.has(r.y.pixel[e]);
    for (int64_t pw = 0; reaches && pw < bins; ++pw) {
      T g[N];
      for (int64_t i = 0; i < N; ++i) g[i] = grad[(ph * bins + pw) * out.item + i * out.channel];
      for (int32_t e = first; e < last; ++e) {
        T* row = rows + (r.y.place[e] * bins + pw) * N;
        for (int64_t i = 0; i < N; ++i) row[i] += r.y.weight[e] * g[i];
      }
    }
  }
  for (int64_t d = 0; d < r.y.distinct(); ++d) {
    const int32_t y = r.y.pixels[d];
    if (!patch.has(y)) continue;
    for (int64_t i = 0; i < distinct * N; ++i) columns[i] = T(0);
    for (int64_t pw = 0; pw < bins; ++pw) {
      const T* row = rows + (d * bins + pw) * N;
      for (int32_t e = r.x.begin[pw]; e < r.x.begin[pw + 1]; ++e) {
        T* column = columns + r.x.place[e] * N;
        for (int64_t i = 0; i < N; ++i) column[i] += r.x.weight[e] * row[i];
      }
    }
    T* row = to + (y - patch.begin) * p.width * in.item;
    for (int64_t j = 0; j < distinct; ++j) {
      T* at = row + r.x.pixels[j] * in.item;
      for (int64_t i = 0; i < N; ++i) at[i * in.channel] += columns[j * N + i];
    }
  }
}

// grad (K, C, bins), or (K, bins, C) if nhwc
template <typename T>
void scatter(const roi::OutputGrad<T>& grad, const T* rois, int64_t count, const Params& p, double work,
             const roi::MapGrad<T>& to) {
  const Strides from = Strides::of(grad.nhwc, p.channels, p.bins());
  const auto new_adder = [&] {
    return [&, rows = std::vector<T>(), columns = std::vector<T>()](const GradientWeights<T>& r, int64_t k,
                                                                    const Patch<T>& patch) mutable {
      rows.resize(std::max<size_t>(rows.size(), r.y.distinct() * p.pooled_w * patch.count));
      columns.resize(std::max<size_t>(columns.size(), r.x.distinct() * patch.count));
      const T* g = grad.data + k * p.channels * p.bins();
      vectorized([&] {
        for_each_lanes(patch.c, patch.c + patch.count, [&](auto lanes, int64_t c) {
          scatter_region<lanes()>(r, g + c * from.channel, from, p, patch, rows.data(), columns.data(),
                                  patch.data + (c - patch.c) * patch.strides.channel);
        });
      });
    };
  };
  add_weighted(rois, count, p, to, work, new_adder);
}

}  // namespace cv::roi_align
