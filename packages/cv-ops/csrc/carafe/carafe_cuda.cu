// CARAFE on CUDA. A thread has one pixel and kChannels channels of one group, so that a mask is read once for all of
// them; threads are numbered as the map is stored, so that loads and stores are coalesced in both layouts. With
// channels last and whole packs, the channels of a thread are moved 16 bytes at a time. Sums are in opmath dtype and
// no two threads add into one place: all results are the same in every run.

#include <tuple>

#include "../common/cuda_utils.cuh"
#include "../common/memory_format.h"
#include "carafe_args.h"

namespace cv::carafe {
namespace {

constexpr int kChannels = 8;

// Element (image, channel, pixel) of a map in either layout; wide: packs of kChannels may be moved at once.
struct Layout {
  int64_t image, channel, pixel;
  bool wide;

  static Layout make(int64_t channels, int64_t pixels, bool nhwc, bool wide) {
    return Layout{channels * pixels, nhwc ? 1 : pixels, nhwc ? channels : 1, wide};
  }
  __device__ __forceinline__ int64_t at(int64_t b, int64_t c, int64_t i) const {
    return b * image + c * channel + i * pixel;
  }
};

// 16 bytes of T, and as many of them as hold kChannels
template <typename T>
struct Wide {
  static constexpr int size = 16 / sizeof(T);
  static constexpr int count = kChannels / size;
};

// sum[k] += w * p[k * stride], k < n
template <typename T, typename A>
__device__ __forceinline__ void add_channels(A sum[kChannels], A w, const T* p, const Layout& layout, int n) {
  if (layout.wide) {
#pragma unroll
    for (int i = 0; i < Wide<T>::count; ++i) {
      const auto pack = reinterpret_cast<const Pack<T, Wide<T>::size>*>(p)[i];
#pragma unroll
      for (int k = 0; k < Wide<T>::size; ++k) sum[i * Wide<T>::size + k] += w * static_cast<A>(pack.v[k]);
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kChannels; ++k)
    if (k < n) sum[k] += w * static_cast<A>(p[k * layout.channel]);
}

template <typename T, typename A>
__device__ __forceinline__ void store_channels(T* p, const A sum[kChannels], const Layout& layout, int n) {
  if (layout.wide) {
#pragma unroll
    for (int i = 0; i < Wide<T>::count; ++i) {
      Pack<T, Wide<T>::size> pack;
#pragma unroll
      for (int k = 0; k < Wide<T>::size; ++k) pack.v[k] = static_cast<T>(sum[i * Wide<T>::size + k]);
      reinterpret_cast<Pack<T, Wide<T>::size>*>(p)[i] = pack;
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kChannels; ++k)
    if (k < n) p[k * layout.channel] = static_cast<T>(sum[k]);
}

// What thread i has: a pixel of an image, and channels [channel, channel + n) of a group.
struct Place {
  int64_t image, pixel, group, channel;
  int n;

  static __device__ __forceinline__ Place of(int64_t i, const Params& p, int64_t chunks, int64_t pixels, bool nhwc) {
    const int64_t packs = p.groups * chunks;
    const int64_t pixel = nhwc ? i / packs % pixels : i % pixels, pack = nhwc ? i % packs : i / pixels % packs;
    const int64_t group = pack / chunks, begin = (pack - group * chunks) * kChannels;
    const int64_t left = p.group_channels() - begin;
    return Place{i / packs / pixels, pixel, group, group * p.group_channels() + begin,
                 static_cast<int>(left < kChannels ? left : kChannels)};
  }
};

template <typename T>
__global__ void forward_kernel(int64_t count, Params p, int64_t chunks, const T* CV_RESTRICT features, Layout in,
                               const T* CV_RESTRICT masks, T* CV_RESTRICT output, Layout out, bool nhwc) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, count) {
    const Place at = Place::of(i, p, chunks, p.out_plane(), nhwc);
    const int64_t row = at.pixel / p.out_width(), column = at.pixel - row * p.out_width();
    const int64_t top = row / p.scale - p.kernel / 2, left = column / p.scale - p.kernel / 2;
    const T* map = features + in.at(at.image, at.channel, 0);
    const T* mask = masks + p.mask_index(at.image, at.group, 0, at.pixel);
    A sum[kChannels] = {};
    for (int64_t y = 0; y < p.kernel; ++y)
      for (int64_t x = 0; x < p.kernel; ++x, mask += p.out_plane())
        if (p.inside(top + y, left + x))
          add_channels(sum, static_cast<A>(*mask), map + ((top + y) * p.width + left + x) * in.pixel, in, at.n);
    store_channels(output + out.at(at.image, at.channel, at.pixel), sum, out, at.n);
  }
}

template <typename T>
__global__ void features_kernel(int64_t count, Params p, int64_t chunks, const T* CV_RESTRICT grad, Layout out,
                                const T* CV_RESTRICT masks, T* CV_RESTRICT grad_features, Layout in, bool nhwc) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, count) {
    const Place at = Place::of(i, p, chunks, p.plane(), nhwc);
    const int64_t row = at.pixel / p.width + p.kernel / 2, column = at.pixel % p.width + p.kernel / 2;
    const T* map = grad + out.at(at.image, at.channel, 0);
    const T* mask = masks + p.mask_index(at.image, at.group, 0, 0);
    A sum[kChannels] = {};
    for (int64_t y = row; y > row - p.kernel; --y)
      for (int64_t x = column; x > column - p.kernel; --x, mask += p.out_plane()) {
        if (!p.inside(y, x)) continue;
        for (int64_t v = y * p.scale; v < (y + 1) * p.scale; ++v)
          for (int64_t u = x * p.scale; u < (x + 1) * p.scale; ++u) {
            const int64_t pixel = v * p.out_width() + u;
            add_channels(sum, static_cast<A>(mask[pixel]), map + pixel * out.pixel, out, at.n);
          }
      }
    store_channels(grad_features + in.at(at.image, at.channel, at.pixel), sum, in, at.n);
  }
}

// One thread per mask; neighbouring threads are neighbouring pixels.
template <typename T>
__global__ void masks_kernel(int64_t count, Params p, const T* CV_RESTRICT features, Layout in,
                             const T* CV_RESTRICT grad, Layout out, T* CV_RESTRICT grad_masks) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, count) {
    const int64_t pixel = i % p.out_plane(), rest = i / p.out_plane(), tap = rest % p.taps();
    const int64_t group = rest / p.taps() % p.groups, image = rest / p.taps() / p.groups;
    const int64_t y = pixel / p.out_width() / p.scale + tap / p.kernel - p.kernel / 2;
    const int64_t x = pixel % p.out_width() / p.scale + tap % p.kernel - p.kernel / 2;
    A sum = A(0);
    if (p.inside(y, x)) {
      const int64_t n = p.group_channels();
      const T* a = features + in.at(image, group * n, y * p.width + x);
      const T* b = grad + out.at(image, group * n, pixel);
      int64_t c = 0;
      if (in.wide && out.wide) {
        constexpr int size = Wide<T>::size;
        for (; c < n; c += size) {  // n is a multiple of kChannels
          const auto left = *reinterpret_cast<const Pack<T, size>*>(a + c);
          const auto right = *reinterpret_cast<const Pack<T, size>*>(b + c);
#pragma unroll
          for (int k = 0; k < size; ++k) sum += static_cast<A>(left.v[k]) * static_cast<A>(right.v[k]);
        }
      }
      for (; c < n; ++c) sum += static_cast<A>(a[c * in.channel]) * static_cast<A>(b[c * out.channel]);
    }
    grad_masks[i] = static_cast<T>(sum);
  }
}

Tensor in_layout(const Tensor& t, bool nhwc) { return nhwc ? channels_last(t) : as_contiguous(t); }

bool may_be_wide(const Params& p, bool nhwc, const void* address) {
  return nhwc && p.group_channels() % kChannels == 0 && aligned_to(address, 16);
}

int64_t chunks_of(const Params& p) { return (p.group_channels() + kChannels - 1) / kChannels; }

Tensor carafe_cuda(const Tensor& features, const Tensor& masks, int64_t kernel, int64_t groups, int64_t scale) {
  const Params p = make_params(features, masks, kernel, groups, scale);
  const CudaScope scope(features);
  const bool nhwc = is_channels_last(features);
  const Tensor x = in_layout(features, nhwc), m = as_contiguous(masks);
  Tensor out = empty_4d(features, p.batch, p.channels, p.out_height(), p.out_width(), features.scalar_type(), nhwc);
  if (out.numel() == 0) return out;
  dispatch_float(features.scalar_type(), "carafe", [&](auto t) {
    using T = typename decltype(t)::type;
    const T* from = x.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    const Layout in = Layout::make(p.channels, p.plane(), nhwc, may_be_wide(p, nhwc, from));
    const Layout bins = Layout::make(p.channels, p.out_plane(), nhwc, may_be_wide(p, nhwc, to));
    const int64_t chunks = chunks_of(p), count = p.batch * p.groups * chunks * p.out_plane();
    forward_kernel<<<blocks_for(count), kThreads, 0, scope.stream>>>(count, p, chunks, from, in,
                                                                     m.const_data_ptr<T>(), to, bins, nhwc);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

std::tuple<Tensor, Tensor> carafe_backward_cuda(const Tensor& grad, const Tensor& features, const Tensor& masks,
                                                int64_t kernel, int64_t groups, int64_t scale, bool want_features,
                                                bool want_masks) {
  const Params p = make_params(features, masks, kernel, groups, scale);
  check_grad(grad, features, p);
  const CudaScope scope(features);
  const bool nhwc = is_channels_last(features);
  const ScalarType dtype = features.scalar_type();
  const Tensor x = in_layout(features, nhwc), m = as_contiguous(masks), g = in_layout(grad, nhwc);
  Tensor grad_features = want_features ? empty_4d(features, p.batch, p.channels, p.height, p.width, dtype, nhwc)
                                       : empty_beside(features, {0}, dtype);
  Tensor grad_masks = want_masks ? Tensor(torch::stable::new_zeros(masks, masks.sizes(), dtype)) : empty_beside(masks, {0}, dtype);
  if (grad.numel() == 0) return {grad_features, grad_masks};
  dispatch_float(dtype, "carafe_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    const T *from = g.const_data_ptr<T>(), *map = x.const_data_ptr<T>();
    const auto in_layout_of = [&](const T* address) {
      return Layout::make(p.channels, p.plane(), nhwc, may_be_wide(p, nhwc, address));
    };
    const Layout out = Layout::make(p.channels, p.out_plane(), nhwc, may_be_wide(p, nhwc, from));
    if (want_features) {
      T* to = grad_features.mutable_data_ptr<T>();
      const int64_t chunks = chunks_of(p), count = p.batch * p.groups * chunks * p.plane();
      features_kernel<<<blocks_for(count), kThreads, 0, scope.stream>>>(count, p, chunks, from, out,
                                                                        m.const_data_ptr<T>(), to, in_layout_of(to), nhwc);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    if (want_masks) {
      const int64_t count = grad_masks.numel();
      masks_kernel<<<blocks_for(count), kThreads, 0, scope.stream>>>(count, p, map, in_layout_of(map), from, out,
                                                                     grad_masks.mutable_data_ptr<T>());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
  });
  return {grad_features, grad_masks};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("carafe", CV_BOX(&carafe_cuda));
  m.impl("carafe_backward", CV_BOX(&carafe_backward_cuda));
}

}  // namespace cv::carafe
