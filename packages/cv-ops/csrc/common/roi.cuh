#pragma once
// What the CUDA halves of the operators on regions share. Both layouts of a map go through the same kernels: a
// map is a base, a stride between channels and a stride between pixels. Threads are numbered as the output is
// stored, so stores are coalesced in both, and so are loads where channels are last.

#include "cuda_utils.cuh"
#include "memory_format.h"
#include "roi.h"

namespace cv::roi {

// Element (b, c, i) of a (B, C, I) or (B, I, C) tensor, I being pixels or bins.
struct Layout {
  int64_t image, channel, pixel;

  static Layout make(int64_t channels, int64_t pixels, bool nhwc) {
    return Layout{channels * pixels, nhwc ? 1 : pixels, nhwc ? channels : 1};
  }
  __device__ __forceinline__ int64_t at(int64_t b, int64_t c, int64_t i) const {
    return b * image + c * channel + i * pixel;
  }
};

// Which bin and channels thread `i` has, numbered as the output is stored; `packs` is channels per N.
struct Place {
  int64_t region;
  int32_t channel, ph, pw;

  template <typename index_t>
  static __device__ __forceinline__ Place of(index_t i, const Params& p, index_t packs, bool nhwc, int n) {
    const index_t bins = static_cast<index_t>(p.bins()), width = static_cast<index_t>(p.pooled_w);
    const index_t bin = nhwc ? i / packs % bins : i % bins;
    const index_t pack = nhwc ? i % packs : i / bins % packs;
    return Place{static_cast<int64_t>(i / packs / bins), static_cast<int32_t>(pack) * n,
                 static_cast<int32_t>(bin / width), static_cast<int32_t>(bin % width)};
  }
  __device__ __forceinline__ int64_t bin(const Params& p) const { return ph * p.pooled_w + pw; }
};

template <typename T, int N>
__device__ __forceinline__ Pack<T, N> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, N>*>(p);
}

// The four pixels of one sample and their weights.
template <typename A>
struct Corners {
  int64_t pixel[4];
  A weight[4];

  __device__ __forceinline__ Corners(const Tap<A>& y, const Tap<A>& x, int64_t width)
      : pixel{y.low * width + x.low, y.low * width + x.high, y.high * width + x.low, y.high * width + x.high},
        weight{y.weight_low * x.weight_low, y.weight_low * x.weight_high, y.weight_high * x.weight_low,
               y.weight_high * x.weight_high} {}
};

inline Tensor in_layout(const Tensor& t, bool nhwc) { return nhwc ? channels_last(t) : as_contiguous(t); }

}  // namespace cv::roi
