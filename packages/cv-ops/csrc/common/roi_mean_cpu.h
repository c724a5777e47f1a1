#pragma once
// The mean of a bin's samples on the CPU, and its gradients, where the samples of a bin are not a product of two
// axes that its neighbours share. A bin becomes a list of pixels and weights, samples that read the same pixel
// added up; what follows runs over channels. Maps are read as (N, H, W, C), except for few regions on a large
// contiguous map, where turning the map would cost more.
//
// What a region is and where it is sampled comes from a Sampler, see roi_mean.cuh.
//
// Everything is deterministic, on any number of threads: an element of a gradient belongs to one task, which adds
// region after region.

#include <limits>
#include <vector>

#include "isa.h"
#include "roi_cpu.h"

namespace cv::roi {

using torch::stable::parallel_for;

constexpr double kSamplesAtOnce = 1 << 19;  // whose pixels are kept in the backward pass: bounds memory

// The bins of one region as pixels and weights.
template <typename T>
struct RegionTaps {
  int64_t image = -1;
  std::vector<int32_t> pixel;
  std::vector<T> weight;
  std::vector<int64_t> begin;  // entries of bin b are [begin[b], begin[b + 1])
  int64_t longest = 0;         // entries of a bin, at most

  // `slots` is scratch, one number for each pixel of the map: all -1 before and after.
  template <typename Sampler>
  void build(const Sampler& sampler, int64_t k, std::vector<int32_t>& slots) {
    const Params& p = sampler.p;
    const auto r = sampler.region(k);
    image = r.image;
    pixel.clear();
    weight.clear();
    begin.assign(1, 0);
    longest = 0;
    if (image < 0) return;
    const T scale = T(1) / r.count;
    for (int64_t b = 0; b < p.bins(); ++b) {
      sampler.for_each_sample(r, k, b / p.pooled_w, b % p.pooled_w, [&](const Tap<T>& y, const Tap<T>& x) {
        const T above = y.weight_low * scale, below = y.weight_high * scale;
        add(y.low * p.width + x.low, above * x.weight_low, slots);
        add(y.low * p.width + x.high, above * x.weight_high, slots);
        add(y.high * p.width + x.low, below * x.weight_low, slots);
        add(y.high * p.width + x.high, below * x.weight_high, slots);
      });
      for (size_t e = begin.back(); e < pixel.size(); ++e) slots[pixel[e]] = -1;
      longest = std::max(longest, static_cast<int64_t>(pixel.size()) - begin.back());
      begin.push_back(static_cast<int64_t>(pixel.size()));
    }
  }

 private:
  void add(int64_t at, T w, std::vector<int32_t>& slots) {
    int32_t& slot = slots[at];
    if (slot < 0) {
      slot = static_cast<int32_t>(static_cast<int64_t>(pixel.size()) - begin.back());
      pixel.push_back(static_cast<int32_t>(at));
      weight.push_back(w);
    } else {
      weight[begin.back() + slot] += w;
    }
  }
};

// out (bins, count), rows `stride` apart: the channels [c, c + count) of one region
template <typename T>
CV_HD void pool_taps(const RegionTaps<T>& r, const T* image, const Params& p, int64_t c, int64_t count, const T** rows,
                     T* out, int64_t stride) {
  for (int64_t b = 0; b < p.bins(); ++b) {
    const int64_t first = r.begin[b], n = r.begin[b + 1] - first;
    for (int64_t i = 0; i < n; ++i) rows[i] = image + r.pixel[first + i] * p.channels + c;
    weighted_sum(out + b * stride, rows, r.weight.data() + first, n, count);
  }
}

// x (N, H, W, C); out (K, C, bins), or (K, bins, C) if nhwc
template <typename T, typename Sampler>
void mean_channels_last(const T* x, const Sampler& sampler, int64_t count, T* out, bool nhwc) {
  const Params& p = sampler.p;
  const int64_t block = std::min(p.channels, kChannelBlock), blocks = (p.channels + block - 1) / block;
  parallel_for(0, count * blocks, grain_of_regions(p, block), [&](int64_t begin, int64_t end) {
    std::vector<int32_t> slots(p.plane(), -1);
    std::vector<T> transposed(nhwc ? 0 : p.bins() * block);
    std::vector<const T*> rows;
    RegionTaps<T> r;
    int64_t region = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task / blocks, c = task % blocks * block, n = std::min(block, p.channels - c);
      if (k != region) {
        r.build(sampler, k, slots);
        rows.resize(r.longest);
        region = k;
      }
      T* to = out + k * p.channels * p.bins() + (nhwc ? c : c * p.bins());
      if (r.image < 0) {
        const T nan = std::numeric_limits<T>::quiet_NaN();
        for (int64_t b = 0; nhwc && b < p.bins(); ++b) std::fill_n(to + b * p.channels, n, nan);
        if (!nhwc) std::fill_n(to, n * p.bins(), nan);
        continue;
      }
      const T* image = x + r.image * p.plane() * p.channels;
      vectorized([&] {
        if (nhwc) {
          pool_taps(r, image, p, c, n, rows.data(), to, p.channels);
        } else {
          pool_taps(r, image, p, c, n, rows.data(), transposed.data(), n);
          transpose_small(to, transposed.data(), p.bins(), n);
        }
      });
    }
  });
}

// x (N, C, H, W), out (K, C, bins): plane by plane
template <typename T, typename Sampler>
void mean_planes(const T* x, const Sampler& sampler, int64_t count, T* out) {
  const Params& p = sampler.p;
  const int64_t block = 32, blocks = (p.channels + block - 1) / block;
  parallel_for(0, count * blocks, grain_of_regions(p, block), [&](int64_t begin, int64_t end) {
    std::vector<int32_t> slots(p.plane(), -1);
    RegionTaps<T> r;
    int64_t region = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task / blocks, first = task % blocks * block;
      if (k != region) r.build(sampler, k, slots), region = k;
      for (int64_t c = first; c < std::min(first + block, p.channels); ++c) {
        T* to = out + (k * p.channels + c) * p.bins();
        const T* plane = x + (r.image * p.channels + c) * p.plane();
        for (int64_t b = 0; b < p.bins(); ++b) {
          T sum = r.image < 0 ? std::numeric_limits<T>::quiet_NaN() : T(0);
          for (int64_t e = r.image < 0 ? 0 : r.begin[b]; r.image >= 0 && e < r.begin[b + 1]; ++e)
            sum += r.weight[e] * plane[r.pixel[e]];
          to[b] = sum;
        }
      }
    }
  });
}

// Samples of one region inside the map, roughly.
template <typename Sampler>
double samples_of(const Sampler& sampler, int64_t k) {
  const Params& p = sampler.p;
  const auto r = sampler.region(k);
  if (r.image < 0) return 1;
  const double all = static_cast<double>(r.count) * static_cast<double>(p.bins());
  return p.sampling_ratio > 0 ? all : std::min(all, 4.0 * static_cast<double>(p.plane()) + 4.0 * p.bins());
}

// (K, C, pooled_h, pooled_w) in the opmath dtype T of the input, in its memory format
template <typename T, typename Sampler>
Tensor mean_cpu(const Tensor& input, const Sampler& sampler, int64_t count) {
  const Params& p = sampler.p;
  const bool nhwc = is_channels_last(input);
  const ScalarType acc = opmath_dtype(input.scalar_type());
  Tensor out = empty_4d(input, count, p.channels, p.pooled_h, p.pooled_w, acc, nhwc);
  if (out.numel() == 0) return out;
  T* to = out.template mutable_data_ptr<T>();
  if (p.plane() == 0) {
    std::fill_n(to, out.numel(), T(0));
    return out;
  }
  double samples = 0;
  for (int64_t k = 0; k < count; ++k) samples += samples_of(sampler, k);
  if (nhwc || samples > static_cast<double>(p.batch * p.plane())) {
    const Tensor x = channels_last(to_opmath(input));
    mean_channels_last(x.const_data_ptr<T>(), sampler, count, to, nhwc);
  } else {
    const Tensor x = as_contiguous(to_opmath(input));
    mean_planes(x.const_data_ptr<T>(), sampler, count, to);
  }
  return out;
}

// Adds one region's gradient into `image` (H, W, C), for the channels [c, c + count) and the rows of a band.
template <typename T>
CV_HD void spread_taps(const RegionTaps<T>& r, const T* grad, int64_t stride, const Params& p, int64_t c, int64_t count,
                       int64_t band, int64_t bands, T* image) {
  for (int64_t b = 0; b < p.bins(); ++b) {
    for (int64_t e = r.begin[b]; e < r.begin[b + 1]; ++e) {
      if (bands > 1 && r.pixel[e] / p.width % bands != band) continue;
      add_scaled(image + r.pixel[e] * p.channels + c, grad + b * stride, r.weight[e], count);
    }
  }
}

// The gradient of the map, (N, C, H, W) stored channels last, in opmath dtype T
template <typename T, typename Sampler>
Tensor mean_backward_cpu(const Tensor& grad, const Sampler& sampler) {
  const Params& p = sampler.p;
  const int64_t count = grad.size(0);
  Tensor grad_input = empty_4d(grad, p.batch, p.channels, p.height, p.width, opmath_dtype(grad.scalar_type()), true);
  torch::stable::zero_(grad_input);
  if (grad.numel() == 0 || grad_input.numel() == 0) return grad_input;
  const bool nhwc = is_channels_last(grad);
  const Tensor g = nhwc ? to_opmath(grad) : as_contiguous(to_opmath(grad));
  const OutputGrad<T> out_grad{g.const_data_ptr<T>(), nhwc};
  T* to = grad_input.template mutable_data_ptr<T>();
  const Partition part = Partition::make(p.channels, tag<T>{});
  std::vector<RegionTaps<T>> taps;
  for (int64_t first = 0, last; first < count; first = last) {
    double samples = samples_of(sampler, first);
    for (last = first + 1; last < count; ++last)
      if ((samples += samples_of(sampler, last)) > kSamplesAtOnce) break;
    taps.resize(std::max(taps.size(), static_cast<size_t>(last - first)));
    parallel_for(first, last, 8, [&](int64_t begin, int64_t end) {
      std::vector<int32_t> slots(p.plane(), -1);
      for (int64_t k = begin; k < end; ++k) taps[k - first].build(sampler, k, slots);
    });
    parallel_for(0, part.blocks * part.bands, 1, [&](int64_t begin, int64_t end) {
      std::vector<T> buffer(p.bins() * part.block);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t c = task % part.blocks * part.block, size = std::min(part.block, p.channels - c);
        vectorized([&] {
          for (int64_t k = first; k < last; ++k) {
            const RegionTaps<T>& r = taps[k - first];
            if (r.image < 0) continue;
            int64_t stride;
            const T* from = out_grad.block(p, k, c, size, buffer.data(), stride);
            spread_taps(r, from, stride, p, c, size, task / part.blocks, part.bands,
                        to + r.image * p.plane() * p.channels);
          }
        });
      }
    });
  }
  return grad_input;
}

}  // namespace cv::roi
