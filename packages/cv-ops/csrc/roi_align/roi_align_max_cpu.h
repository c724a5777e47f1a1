#pragma once
// The greatest sample of each bin, and the gradient that goes back to the four pixels it was read from.
// A sample is stored as its number within the bin's samples; see encode_sample in roi_align.h.

#include <algorithm>
#include <limits>
#include <vector>

#include "../common/isa.h"
#include "../common/roi_cpu.h"
#include "../common/transpose.h"
#include "../common/vec.h"
#include "roi_align.h"

namespace cv::roi_align {

using roi::Partition;
using roi::Strides;
using torch::stable::parallel_for;

// One sample: four pixels, as offsets into the image, and their weights.
template <typename T>
struct PixelTaps {
  int64_t at[4];
  T weight[4];
};

// The samples of one bin, in the order of their codes; those outside the map have a negative offset.
template <typename T>
struct BinSamples {
  std::vector<PixelTaps<T>> samples;
  std::vector<Tap<T>> columns;
  bool zero;  // whether zero takes part: a sample is outside the map, or there is none

  void build(const Region<T>& r, int64_t bin, const Params& p, const Strides& in) {
    const int64_t ph = bin / p.pooled_w, pw = bin % p.pooled_w;
    const SampleRange ry = samples_inside(r.y, ph), rx = samples_inside(r.x, pw);
    columns.clear();
    for (int32_t sx = rx.begin; sx < rx.end; ++sx) columns.push_back(tap_or_outside(r.x, pw, sx));
    samples.clear();
    int64_t inside = 0;
    for (int32_t sy = ry.begin; sy < ry.end; ++sy) {
      const Tap<T> y = tap_or_outside(r.y, ph, sy);
      for (const Tap<T>& x : columns) {
        samples.push_back(combine(y, x, p, in.item));
        inside += samples.back().at[0] >= 0;
      }
    }
    zero = inside == 0 || T(inside) < r.x.grid * r.y.grid;
  }

 private:
  static Tap<T> tap_or_outside(const Axis<T>& axis, int64_t bin, int32_t sample) {
    Tap<T> t;
    if (!make_tap(axis.position(bin, sample), axis.size, t)) t.low = -1;
    return t;
  }
  static PixelTaps<T> combine(const Tap<T>& y, const Tap<T>& x, const Params& p, int64_t c) {
    if (y.low < 0 || x.low < 0) return PixelTaps<T>{{-1, -1, -1, -1}, {T(0), T(0), T(0), T(0)}};
    const int64_t above = y.low * p.width, below = y.high * p.width;
    return PixelTaps<T>{{(above + x.low) * c, (above + x.high) * c, (below + x.low) * c, (below + x.high) * c},
                        {y.weight_low * x.weight_low, y.weight_low * x.weight_high, y.weight_high * x.weight_low,
                         y.weight_high * x.weight_high}};
  }
};

// Greatest sample and its code, for `Lanes` channels beside each other in an image whose pointer starts at the first
template <typename T, int64_t Lanes>
CV_HD void greatest(const PixelTaps<T>* samples, int32_t count, bool zero, const T* image, T* CV_RESTRICT out,
                    int32_t* CV_RESTRICT code) {
  T best[Lanes];
  int32_t which[Lanes];
  for (int64_t i = 0; i < Lanes; ++i) best[i] = zero ? T(0) : -std::numeric_limits<T>::infinity(), which[i] = -1;
  for (int32_t s = 0; s < count; ++s) {
    const PixelTaps<T>& tap = samples[s];
    if (tap.at[0] < 0) continue;
    const T *p0 = image + tap.at[0], *p1 = image + tap.at[1], *p2 = image + tap.at[2], *p3 = image + tap.at[3];
    const T w0 = tap.weight[0], w1 = tap.weight[1], w2 = tap.weight[2], w3 = tap.weight[3];
    for (int64_t i = 0; i < Lanes; ++i) {
      const T v = w0 * p0[i] + w1 * p1[i] + w2 * p2[i] + w3 * p3[i];
      const bool take = (v > best[i]) | (v != v);  // NaN is taken, and then kept
      best[i] = take ? v : best[i];
      which[i] = take ? s : which[i];
    }
  }
  for (int64_t i = 0; i < Lanes; ++i) out[i] = best[i], code[i] = which[i];
}

template <typename T>
CV_HD void greatest_of_bin(const BinSamples<T>& bin, const T* image, const Strides& in, int64_t channels, T* out,
                           int32_t* code) {
  constexpr int64_t lanes = 2 * Vec<T>::size;
  const auto count = static_cast<int32_t>(bin.samples.size());
  int64_t c = 0;
  for (; in.channel == 1 && c + lanes <= channels; c += lanes)
    greatest<T, lanes>(bin.samples.data(), count, bin.zero, image + c, out + c, code + c);
  for (; c < channels; ++c)
    greatest<T, 1>(bin.samples.data(), count, bin.zero, image + c * in.channel, out + c, code + c);
}

// The greatest sample of each bin of a region, for fewer than kFewChannels channels: without a list of samples.
template <typename T>
void greatest_of_few(const Region<T>& r, const T* image, const Strides& in, const Params& p, const Strides& to, T* out,
                     int32_t* codes) {
  for (int64_t b = 0; b < p.bins(); ++b) {
    const int64_t ph = b / p.pooled_w, pw = b % p.pooled_w;
    const SampleRange ry = samples_inside(r.y, ph), rx = samples_inside(r.x, pw);
    T best[roi::kFewChannels];
    int32_t which[roi::kFewChannels], inside = 0;
    std::fill_n(best, roi::kFewChannels, -std::numeric_limits<T>::infinity());
    std::fill_n(which, roi::kFewChannels, -1);
    roi::for_each_tap(r.y, ph, [&](int32_t sy, const Tap<T>& y) {
      const T *above = image + y.low * p.width * in.item, *below = image + y.high * p.width * in.item;
      roi::for_each_tap(r.x, pw, [&](int32_t sx, const Tap<T>& x) {
        const int64_t left = x.low * in.item, right = x.high * in.item;
        const T w0 = y.weight_low * x.weight_low, w1 = y.weight_low * x.weight_high;
        const T w2 = y.weight_high * x.weight_low, w3 = y.weight_high * x.weight_high;
        const int32_t code = encode_sample(sy, sx, ry, rx);
        for (int64_t c = 0; c < p.channels; ++c) {
          const int64_t at = c * in.channel;
          const T v = w0 * above[left + at] + w1 * above[right + at] + w2 * below[left + at] + w3 * below[right + at];
          const bool take = (v > best[c]) | (v != v);  // NaN is taken, and then kept
          best[c] = take ? v : best[c];
          which[c] = take ? code : which[c];
        }
        ++inside;
      });
    });
    const bool zero = inside == 0 || T(inside) < r.x.grid * r.y.grid;  // takes part, before all others
    for (int64_t c = 0; c < p.channels; ++c) {
      const bool none = zero && best[c] <= T(0);
      out[b * to.item + c * to.channel] = none ? T(0) : best[c];
      codes[b * to.item + c * to.channel] = none ? -1 : which[c];
    }
  }
}

// x in the layout `last` says, out and codes in that of `nhwc`
template <typename T>
void max_pool(const T* x, bool last, const T* rois, int64_t count, const Params& p, T* out, int32_t* codes,
              bool nhwc) {
  const Strides in = Strides::of(last, p.channels, p.plane());
  parallel_for(0, count, roi::grain_of_regions(p, p.channels), [&](int64_t begin, int64_t end) {
    BinSamples<T> bin;
    const bool few = p.channels < roi::kFewChannels;
    std::vector<T> best(few ? 0 : p.bins() * p.channels);
    std::vector<int32_t> code(best.size());
    for (int64_t k = begin; k < end; ++k) {
      const Region<T> r = make_region(rois + 5 * k, p);
      T* to = out + k * p.channels * p.bins();
      int32_t* code_to = codes + k * p.channels * p.bins();
      if (r.image < 0) {
        std::fill_n(to, p.channels * p.bins(), std::numeric_limits<T>::quiet_NaN());
        std::fill_n(code_to, p.channels * p.bins(), -1);
        continue;
      }
      const T* image = x + r.image * p.plane() * p.channels;
      if (few) {
        greatest_of_few(r, image, in, p, Strides::of(nhwc, p.channels, p.bins()), to, code_to);
        continue;
      }
      T* bins_first = nhwc ? to : best.data();
      int32_t* codes_first = nhwc ? code_to : code.data();
      for (int64_t b = 0; b < p.bins(); ++b) {
        bin.build(r, b, p, in);
        vectorized([&] {
          greatest_of_bin(bin, image, in, p.channels, bins_first + b * p.channels, codes_first + b * p.channels);
        });
      }
      if (!nhwc) {
        transpose_small(to, best.data(), p.bins(), p.channels);
        transpose_small(code_to, code.data(), p.bins(), p.channels);
      }
    }
  });
}

// The gradient of one bin, for so few channels that each one's sample is found again by itself
template <typename T>
void spread_few(const T* grad, const int32_t* codes, int64_t k, int64_t b, const Region<T>& r, const Params& p,
                bool nhwc, const Strides& in, T* image) {
  const Strides from = Strides::of(nhwc, p.channels, p.bins());
  for (int64_t c = 0; c < p.channels; ++c) {
    const int64_t at = k * p.channels * p.bins() + b * from.item + c * from.channel;
    Tap<T> y, x;
    if (!decode_sample(codes[at], r, b / p.pooled_w, b % p.pooled_w, y, x)) continue;
    T *above = image + y.low * p.width * in.item + c * in.channel, *below = above + (y.high - y.low) * p.width * in.item;
    above[x.low * in.item] += y.weight_low * x.weight_low * grad[at];
    above[x.high * in.item] += y.weight_low * x.weight_high * grad[at];
    below[x.low * in.item] += y.weight_high * x.weight_low * grad[at];
    below[x.high * in.item] += y.weight_high * x.weight_high * grad[at];
  }
}

// grad_input in the layout `channels_last` says, zero before; grad and codes in that of `nhwc`
template <typename T>
void max_spread(const T* grad, const int32_t* codes, const T* rois, int64_t count, const Params& p, T* grad_input,
                bool channels_last, bool nhwc) {
  const Strides in = Strides::of(channels_last, p.channels, p.plane());
  const Partition part = Partition::make(p.channels, tag<T>{});
  parallel_for(0, part.blocks, 1, [&](int64_t begin, int64_t end) {
    BinSamples<T> bin;
    const int64_t first = begin * part.block, last = std::min(end * part.block, p.channels);
    for (int64_t k = 0; k < count; ++k) {
      const Region<T> r = make_region(rois + 5 * k, p);
      if (r.image < 0) continue;
      T* image = grad_input + r.image * p.plane() * p.channels;
      for (int64_t b = 0; b < p.bins(); ++b) {
        if (p.channels < roi::kFewChannels) {
          spread_few(grad, codes, k, b, r, p, nhwc, in, image);
          continue;
        }
        bin.build(r, b, p, in);
        const auto samples = static_cast<int32_t>(bin.samples.size());
        const int64_t at = k * p.channels * p.bins() + (nhwc ? b * p.channels : b), step = nhwc ? 1 : p.bins();
        for (int64_t c = first; c < last; ++c) {
          const int32_t code = codes[at + c * step];
          if (code < 0 || code >= samples) continue;
          const PixelTaps<T>& tap = bin.samples[code];
          if (tap.at[0] < 0) continue;
          const T g = grad[at + c * step];
          for (int i = 0; i < 4; ++i) image[tap.at[i] + c * in.channel] += tap.weight[i] * g;
        }
      }
    }
  });
}

}  // namespace cv::roi_align
