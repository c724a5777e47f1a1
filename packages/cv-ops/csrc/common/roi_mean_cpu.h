#pragma once
// The mean of a bin's samples on the CPU, and its gradients, where the samples of a bin are not a product of two
// axes that its neighbours share. A bin becomes a list of pixels and weights, samples that read the same pixel
// added up; what follows runs over channels of maps that are read as (N, H, W, C). Where channels are few, or
// regions read so little of a contiguous map that turning it would cost more, some channels at a time are gathered
// from wherever they lie.
//
// What a region is and where it is sampled comes from a Sampler, see roi_mean.cuh.
//
// Everything is deterministic, on any number of threads: an element of a gradient belongs to one task, which adds
// region after region.

#include <cmath>
#include <limits>
#include <vector>

#include "isa.h"
#include "roi_cpu.h"

namespace cv::roi {

using torch::stable::parallel_for;

constexpr double kSamplesAtOnce = 1 << 19;  // whose pixels are kept in the backward pass: bounds memory

// A contiguous map is turned as a whole if regions read more than this share of its pixels; a gradient that is
// wanted contiguous comes from a turned one likewise. Both measured.
constexpr double kTurnFrom = 1.2, kTurnGradientFrom = 1.2;

// read(pixel, weight) for what the mean of bin b of a region is the sum of, in the order of samples
template <typename T, typename Sampler, typename Region, typename F>
void for_each_read(const Sampler& sampler, const Region& r, int64_t k, int64_t b, F&& read) {
  const Params& p = sampler.p;
  const T scale = T(1) / r.count;
  sampler.for_each_sample(r, k, b / p.pooled_w, b % p.pooled_w, [&](const Tap<T>& y, const Tap<T>& x) {
    const T above = y.weight_low * scale, below = y.weight_high * scale;
    const int64_t low = y.low * p.width, high = y.high * p.width;
    read(low + x.low, above * x.weight_low);
    if (x.high > x.low) read(low + x.high, above * x.weight_high);
    if (y.high == y.low) return;
    read(high + x.low, below * x.weight_low);
    if (x.high > x.low) read(high + x.high, below * x.weight_high);
  });
}

// The bins of one region as pixels and weights.
template <typename T>
struct RegionTaps {
  int64_t image = -1;
  std::vector<int32_t> pixel;
  std::vector<T> weight;
  std::vector<int64_t> begin;  // entries of bin b are [begin[b], begin[b + 1])
  int64_t longest = 0;         // entries of a bin, at most

  // `slots` is scratch: empty at first, then -1 for each pixel of the map before and after.
  template <typename Sampler>
  void build(const Sampler& sampler, int64_t k, std::vector<int32_t>& slots) {
    const Params& p = sampler.p;
    const auto r = sampler.region(k);
    image = r.image;
    count_ = longest = 0;
    if (image < 0) return;
    begin.resize(p.bins() + 1);
    const bool merge = r.count > T(1) && p.channels >= kFewChannels;
    if (merge && slots.empty()) slots.assign(p.plane(), -1);
    for (int64_t b = 0; b < p.bins(); ++b) {
      begin[b] = count_;
      for_each_read<T>(sampler, r, k, b, [&](int64_t at, T w) {
        if (merge && slots[at] >= 0) {
          weight[begin[b] + slots[at]] += w;
          return;
        }
        if (merge) slots[at] = static_cast<int32_t>(count_ - begin[b]);
        make_room();
        pixel[count_] = static_cast<int32_t>(at);
        weight[count_++] = w;
      });
      for (int64_t e = begin[b]; merge && e < count_; ++e) slots[pixel[e]] = -1;
      longest = std::max(longest, count_ - begin[b]);
    }
    begin[p.bins()] = count_;
  }

 private:
  int64_t count_ = 0;

  void make_room() {
    if (count_ < static_cast<int64_t>(pixel.size())) return;
    pixel.resize(2 * count_ + 64);
    weight.resize(2 * count_ + 64);
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
void mean_channels_last(const T* x, const Sampler& sampler, int64_t count, double work, T* out, bool nhwc) {
  const Params& p = sampler.p;
  const int64_t block = std::min(p.channels, kChannelBlock), blocks = (p.channels + block - 1) / block;
  parallel_for(0, count * blocks, grain_of_tasks(work, count * blocks), [&](int64_t begin, int64_t end) {
    std::vector<int32_t> slots;
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

// N channels of a region
template <int64_t N, typename T>
CV_HD void gather_taps(const RegionTaps<T>& r, const T* from, Strides in, int64_t bins, T* to, Strides out) {
  for (int64_t b = 0; b < bins; ++b) {
    T sum[N] = {};
    for (int64_t e = r.begin[b]; e < r.begin[b + 1]; ++e) {
      const T* at = from + r.pixel[e] * in.item;
      const T weight = r.weight[e];
      for (int64_t i = 0; i < N; ++i) sum[i] += weight * at[i * in.channel];
    }
    for (int64_t i = 0; i < N; ++i) to[b * out.item + i * out.channel] = sum[i];
  }
}

// x (N, C, H, W) and out (K, C, bins), or (N, H, W, C) and (K, bins, C) if nhwc
template <typename T, typename Sampler>
void mean_gathered(const T* x, const Sampler& sampler, int64_t count, double work, T* out, bool nhwc) {
  const Params& p = sampler.p;
  const int64_t blocks = (p.channels + kLanes - 1) / kLanes, size = p.channels * p.bins();
  const Strides in = Strides::of(nhwc, p.channels, p.plane()), to = Strides::of(nhwc, p.channels, p.bins());
  parallel_for(0, count * blocks, grain_of_tasks(work, count * blocks), [&](int64_t begin, int64_t end) {
    std::vector<int32_t> slots;
    RegionTaps<T> r;
    int64_t region = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task / blocks, c = task % blocks * kLanes, last = std::min(c + kLanes, p.channels);
      if (k != region) r.build(sampler, k, slots), region = k;
      T* at = out + k * size;
      if (r.image < 0) {
        for (int64_t i = c; i < last; ++i)
          for (int64_t b = 0; b < p.bins(); ++b) at[i * to.channel + b * to.item] = std::numeric_limits<T>::quiet_NaN();
        continue;
      }
      const T* image = x + r.image * p.plane() * p.channels;
      vectorized([&] {
        for_each_lanes(c, last, [&](auto n, int64_t first) {
          gather_taps<n()>(r, image + first * in.channel, in, p.bins(), at + first * to.channel, to);
        });
      });
    }
  });
}

// Fewer than kFewChannels channels, wherever they lie: sums are made while sampling, a list would be more work.
template <typename T, typename Sampler>
void mean_of_few(const T* x, const Sampler& sampler, int64_t count, double work, T* out, bool nhwc) {
  const Params& p = sampler.p;
  const int64_t size = p.channels * p.bins();
  const Strides in = Strides::of(nhwc, p.channels, p.plane()), to = Strides::of(nhwc, p.channels, p.bins());
  parallel_for(0, count, grain_of_tasks(4 * work, count), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const auto r = sampler.region(k);
      T* at = out + k * size;
      if (r.image < 0) {
        std::fill_n(at, size, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      const T* image = x + r.image * p.plane() * p.channels;
      for (int64_t b = 0; b < p.bins(); ++b) {
        if (p.channels == 1) {
          T only = T(0);
          for_each_read<T>(sampler, r, k, b, [&](int64_t pixel, T weight) { only += weight * image[pixel]; });
          at[b] = only;
          continue;
        }
        T sum[kFewChannels] = {};
        for_each_read<T>(sampler, r, k, b, [&](int64_t pixel, T weight) {
          for (int64_t c = 0; c < p.channels; ++c) sum[c] += weight * image[pixel * in.item + c * in.channel];
        });
        for (int64_t c = 0; c < p.channels; ++c) at[b * to.item + c * to.channel] = sum[c];
      }
    }
  });
}

// The gradient of the same, on one thread. grad like out above; `to`, like x, is zero before.
template <typename T, typename Sampler>
void spread_of_few(const T* grad, const Sampler& sampler, int64_t count, bool nhwc, T* to, bool nhwc_input) {
  const Params& p = sampler.p;
  const Strides in = Strides::of(nhwc_input, p.channels, p.plane()), from = Strides::of(nhwc, p.channels, p.bins());
  for (int64_t k = 0; k < count; ++k) {
    const auto r = sampler.region(k);
    if (r.image < 0) continue;
    const T* of_bins = grad + k * p.channels * p.bins();
    T* image = to + r.image * p.plane() * p.channels;
    for (int64_t b = 0; b < p.bins(); ++b) {
      if (p.channels == 1) {
        const T g = of_bins[b];
        for_each_read<T>(sampler, r, k, b, [&](int64_t pixel, T weight) { image[pixel] += weight * g; });
        continue;
      }
      for_each_read<T>(sampler, r, k, b, [&](int64_t pixel, T weight) {
        for (int64_t c = 0; c < p.channels; ++c)
          image[pixel * in.item + c * in.channel] += weight * of_bins[b * from.item + c * from.channel];
      });
    }
  }
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

// Pixels that all regions read together, roughly: samples side by side share theirs.
template <typename Sampler>
double pixels_read(const Sampler& sampler, int64_t count) {
  const double bins = static_cast<double>(sampler.p.bins());
  return total_cost(count, sampler.p.channels >= kFewChannels, [&](int64_t k) {
    const double side = std::sqrt(samples_of(sampler, k) / bins) + 1;
    return side * side * bins;
  });
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
  const double read = pixels_read(sampler, count), work = read * static_cast<double>(p.channels);
  const bool turn = !nhwc && reads_more(read, kTurnFrom, p);
  if (p.channels >= kFewChannels && (nhwc || turn)) {
    const Tensor x = channels_last_cpu<T>(to_opmath(input));
    mean_channels_last(x.const_data_ptr<T>(), sampler, count, work, to, nhwc);
  } else {
    const Tensor x = nhwc ? to_opmath(input) : as_contiguous(to_opmath(input));
    const auto mean = p.channels < kFewChannels ? mean_of_few<T, Sampler> : mean_gathered<T, Sampler>;
    mean(x.const_data_ptr<T>(), sampler, count, work, to, nhwc);
  }
  return out;
}

// The bins of a region, and which pixels of the map they reach.
template <typename T>
struct GradientTaps : RegionTaps<T> {
  std::vector<int32_t> lowest, highest;  // pixel of each bin; of a bin without any, lowest > highest
  int64_t first_row = 0, last_row = -1;

  template <typename Sampler>
  void build(const Sampler& sampler, int64_t k, std::vector<int32_t>& slots) {
    RegionTaps<T>::build(sampler, k, slots);
    if (this->image < 0) return;
    const int64_t bins = sampler.p.bins(), width = sampler.p.width;
    lowest.resize(bins), highest.resize(bins);
    int32_t low = std::numeric_limits<int32_t>::max(), high = -1;
    for (int64_t b = 0; b < bins; ++b) {
      lowest[b] = std::numeric_limits<int32_t>::max(), highest[b] = -1;
      for (int64_t e = this->begin[b]; e < this->begin[b + 1]; ++e) {
        lowest[b] = std::min(lowest[b], this->pixel[e]);
        highest[b] = std::max(highest[b], this->pixel[e]);
      }
      low = std::min(low, lowest[b]), high = std::max(high, highest[b]);
    }
    first_row = 0, last_row = -1;
    if (high >= low) first_row = low / width, last_row = high / width;
  }
};

// Adds one region's gradient, (bins, C), to a patch of runs.
template <typename T>
CV_HD void spread_taps(const GradientTaps<T>& r, const T* grad, const Params& p, const Patch<T>& patch) {
  const int64_t from = patch.begin * p.width, until = patch.end * p.width;
  for (int64_t b = 0; b < p.bins(); ++b) {
    if (r.highest[b] < from || r.lowest[b] >= until) continue;
    for (int64_t e = r.begin[b]; e < r.begin[b + 1]; ++e) {
      const int64_t pixel = r.pixel[e];
      if (pixel >= from && pixel < until)
        add_scaled(patch.data + (pixel - from) * p.channels, grad + b * p.channels, r.weight[e], p.channels);
    }
  }
}

// The same for N channels, wherever they lie, of which `to` is the first
template <int64_t N, typename T>
CV_HD void scatter_taps(const GradientTaps<T>& r, const T* grad, Strides out, const Params& p, const Patch<T>& patch,
                        T* to) {
  const int64_t from = patch.begin * p.width, until = patch.end * p.width;
  const Strides in = patch.strides;
  for (int64_t b = 0; b < p.bins(); ++b) {
    if (r.highest[b] < from || r.lowest[b] >= until) continue;
    T g[N];
    for (int64_t i = 0; i < N; ++i) g[i] = grad[b * out.item + i * out.channel];
    for (int64_t e = r.begin[b]; e < r.begin[b + 1]; ++e) {
      const int64_t pixel = r.pixel[e];
      if (pixel < from || pixel >= until) continue;
      T* at = to + (pixel - from) * in.item;
      for (int64_t i = 0; i < N; ++i) at[i * in.channel] += r.weight[e] * g[i];
    }
  }
}

// The gradient of the map, (N, C, H, W) in opmath dtype T, in either layout
template <typename T, typename Sampler>
Tensor mean_backward_cpu(const Tensor& grad, const Sampler& sampler, bool channels_last_input) {
  const Params& p = sampler.p;
  const int64_t count = grad.size(0);
  const double read = pixels_read(sampler, count), work = read * static_cast<double>(p.channels);
  const bool turn = !channels_last_input && reads_more(read, kTurnGradientFrom, p);
  const bool runs = p.channels >= kFewChannels && (channels_last_input || turn);
  Tensor grad_input = empty_4d(grad, p.batch, p.channels, p.height, p.width, opmath_dtype(grad.scalar_type()),
                               channels_last_input);
  if (grad_input.numel() == 0) return grad_input;
  if (grad.numel() == 0) return zero_(grad_input);
  const Tensor g = runs ? in_runs<T>(to_opmath(grad))
                        : is_channels_last(grad) ? to_opmath(grad) : as_contiguous(to_opmath(grad));
  const bool nhwc = runs || is_channels_last(g);
  const T* out_grad = g.template const_data_ptr<T>();
  const Strides from = Strides::of(nhwc, p.channels, p.bins());
  T* to = grad_input.template mutable_data_ptr<T>();
  const bool few = p.channels < kFewChannels;
  if (few && (work + static_cast<double>(grad_input.numel()) < 16384 || torch::stable::get_num_threads() == 1)) {
    std::fill_n(to, grad_input.numel(), T(0));
    spread_of_few(out_grad, sampler, count, nhwc, to, channels_last_input);
    return grad_input;
  }
  const auto batch_end = [&](int64_t first) {
    double samples = samples_of(sampler, first);
    while (++first < count && (samples += samples_of(sampler, first)) <= kSamplesAtOnce) {
    }
    return first;
  };
  const auto new_maker = [&] {
    return [&, slots = std::vector<int32_t>()](GradientTaps<T>& r, int64_t k) mutable { r.build(sampler, k, slots); };
  };
  const auto new_adder = [&] {
    return [&](const GradientTaps<T>& r, int64_t k, const Patch<T>& patch) {
      const T* of_bins = out_grad + k * p.channels * p.bins();
      const auto scatter = [&] {
        for_each_lanes(patch.c, patch.c + patch.count, [&](auto n, int64_t c) {
          scatter_taps<n()>(r, of_bins + c * from.channel, from, p, patch,
                            patch.data + (c - patch.c) * patch.strides.channel);
        });
      };
      if (few) return scatter();  // rounds as spread_of_few does
      vectorized([&] { runs ? spread_taps(r, of_bins, p, patch) : scatter(); });
    };
  };
  const MapGrad<T> map{to, channels_last_input, runs};
  add_regions<GradientTaps<T>>(count, p, map, work, batch_end, new_maker, new_adder);
  return grad_input;
}

}  // namespace cv::roi
