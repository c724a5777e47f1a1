#pragma once
// The mean of a bin's samples on CUDA, and its gradient with respect to the map. What a region is and where it
// is sampled comes from a Sampler:
//
//   template <typename A> struct Sampler {
//     Params p;
//     Region region(int64_t k) const;     // of box k; has .image (-1: the output is NaN) and .count
//     void for_each_sample(const Region&, int64_t k, int64_t ph, int64_t pw, visit) const;
//   };                                    // visit(Tap y, Tap x) for each sample inside the map
//
// One thread has one bin of one channel, or of a pack of 16 bytes of channels where the map is stored channels
// last.

#include <cuda/std/limits>

#include "roi.cuh"

namespace cv::roi {

template <typename T, int N, typename index_t, typename Sampler>
__global__ void mean_kernel(index_t count, const T* CV_RESTRICT input, Layout in, Sampler sampler,
                            T* CV_RESTRICT output, Layout out, bool nhwc) {
  using A = opmath_t<T>;
  const Params& p = sampler.p;
  CV_GRID_LOOP(index_t, i, count) {
    const Place at = Place::of(i, p, static_cast<index_t>(p.channels / N), nhwc, N);
    const auto r = sampler.region(at.region);
    A sum[N];
#pragma unroll
    for (int n = 0; n < N; ++n) sum[n] = r.image < 0 ? cuda::std::numeric_limits<A>::quiet_NaN() : A(0);
    if (r.image >= 0) {
      const T* map = input + in.at(r.image, at.channel, 0);
      sampler.for_each_sample(r, at.region, at.ph, at.pw, [&](const Tap<A>& ty, const Tap<A>& tx) {
        const Corners<A> c(ty, tx, p.width);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const Pack<T, N> v = load_pack<T, N>(map + c.pixel[k] * in.pixel);
#pragma unroll
          for (int n = 0; n < N; ++n) sum[n] += c.weight[k] * static_cast<A>(v.v[n]);
        }
      });
    }
    Pack<T, N> result;
#pragma unroll
    for (int n = 0; n < N; ++n) result.v[n] = static_cast<T>(sum[n] / r.count);
    *reinterpret_cast<Pack<T, N>*>(output + out.at(at.region, at.channel, at.bin(p))) = result;
  }
}

// grad_input (opmath dtype, zero before) in layout `in`, grad in layout `out`. Atomics: the order varies.
template <typename T, typename index_t, typename Sampler>
__global__ void mean_backward_kernel(index_t count, const T* CV_RESTRICT grad, Layout out, Sampler sampler,
                                     opmath_t<T>* grad_input, Layout in, bool nhwc) {
  using A = opmath_t<T>;
  const Params& p = sampler.p;
  CV_GRID_LOOP(index_t, i, count) {
    const Place at = Place::of(i, p, static_cast<index_t>(p.channels), nhwc, 1);
    const auto r = sampler.region(at.region);
    if (r.image < 0) continue;
    const A g = static_cast<A>(grad[out.at(at.region, at.channel, at.bin(p))]) / r.count;
    A* map = grad_input + in.at(r.image, at.channel, 0);
    sampler.for_each_sample(r, at.region, at.ph, at.pw, [&](const Tap<A>& ty, const Tap<A>& tx) {
      const Corners<A> c(ty, tx, p.width);
#pragma unroll
      for (int k = 0; k < 4; ++k) atomic_add(map + c.pixel[k] * in.pixel, c.weight[k] * g);
    });
  }
}

// The same in a fixed order: one warp per row of the map and 32 channels goes through all boxes. No two warps
// write one element. Slow: every warp looks at every sample.
template <typename T, typename Sampler>
__global__ void ordered_mean_backward_kernel(int64_t regions, const T* CV_RESTRICT grad, Layout out, Sampler sampler,
                                             opmath_t<T>* grad_input, Layout in) {
  using A = opmath_t<T>;
  const Params& p = sampler.p;
  const int lane = threadIdx.x % 32;
  const int64_t slabs = (p.channels + 31) / 32, tasks = p.batch * p.height * slabs;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; task < tasks;
       task += warps) {
    const int64_t c = task % slabs * 32 + lane, row = task / slabs % p.height, b = task / slabs / p.height;
    if (c >= p.channels) continue;
    A* to = grad_input + in.at(b, c, row * p.width);
    for (int64_t k = 0; k < regions; ++k) {
      const auto r = sampler.region(k);
      if (r.image != b) continue;
      for (int64_t bin = 0; bin < p.bins(); ++bin) {
        const A g = static_cast<A>(grad[out.at(k, c, bin)]) / r.count;
        sampler.for_each_sample(r, k, bin / p.pooled_w, bin % p.pooled_w, [&](const Tap<A>& ty, const Tap<A>& tx) {
          A wy = A(0);
          if (ty.low == row) wy += ty.weight_low;
          if (ty.high == row) wy += ty.weight_high;
          if (wy == A(0)) return;
          to[tx.low * in.pixel] += wy * tx.weight_low * g;
          to[tx.high * in.pixel] += wy * tx.weight_high * g;
        });
      }
    }
  }
}

// Launches mean_kernel. `x` in the layout `nhwc` says; returns (K, C, pooled_h, pooled_w) in the same.
// make_sampler(tag<A>) gives the Sampler for arithmetic type A.
template <typename MakeSampler>
Tensor mean_cuda(const Tensor& x, int64_t regions, const Params& p, bool nhwc, cudaStream_t stream,
                 MakeSampler make_sampler) {
  Tensor out = empty_4d(x, regions, p.channels, p.pooled_h, p.pooled_w, x.scalar_type(), nhwc);
  if (out.numel() == 0) return out;
  if (p.plane() == 0) return zero_(out);
  dispatch_float(x.scalar_type(), "mean", [&](auto t) {
    using T = typename decltype(t)::type;
    constexpr int kPack = 16 / sizeof(T);
    const auto sampler = make_sampler(tag<opmath_t<T>>{});
    using Sampler = std::remove_const_t<decltype(sampler)>;
    const T* from = x.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    const bool wide = nhwc && p.channels % kPack == 0 && aligned_to(from, 16) && aligned_to(to, 16);
    const Layout in = Layout::make(p.channels, p.plane(), nhwc), bins = Layout::make(p.channels, p.bins(), nhwc);
    const int64_t count = out.numel() / (wide ? kPack : 1);
    dispatch_index(count, [&](auto i) {
      using index_t = typename decltype(i)::type;
      const auto n = static_cast<index_t>(count);
      if (wide)
        mean_kernel<T, kPack, index_t, Sampler>
            <<<blocks_for(count), kThreads, 0, stream>>>(n, from, in, sampler, to, bins, nhwc);
      else
        mean_kernel<T, 1, index_t, Sampler>
            <<<blocks_for(count), kThreads, 0, stream>>>(n, from, in, sampler, to, bins, nhwc);
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

// Adds the gradient into grad_input (N, C, H, W; opmath dtype; layout `nhwc`). `ordered`: see the kernel of that
// name.
template <typename MakeSampler>
void add_mean_backward_cuda(const Tensor& grad, Tensor& grad_input, const Params& p, bool nhwc, bool ordered,
                            cudaStream_t stream, MakeSampler make_sampler) {
  if (grad.numel() == 0 || grad_input.numel() == 0) return;
  const Tensor g = in_layout(grad, nhwc);
  dispatch_float(grad.scalar_type(), "mean_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const auto sampler = make_sampler(tag<A>{});
    using Sampler = std::remove_const_t<decltype(sampler)>;
    const T* from = g.const_data_ptr<T>();
    A* to = grad_input.mutable_data_ptr<A>();
    const Layout in = Layout::make(p.channels, p.plane(), nhwc), bins = Layout::make(p.channels, p.bins(), nhwc);
    const int64_t count = grad.numel();
    if (ordered) {
      const int64_t threads = p.batch * p.height * ((p.channels + 31) / 32) * 32;
      ordered_mean_backward_kernel<T, Sampler>
          <<<blocks_for(threads), kThreads, 0, stream>>>(grad.size(0), from, bins, sampler, to, in);
    } else {
      dispatch_index(count, [&](auto i) {
        using index_t = typename decltype(i)::type;
        mean_backward_kernel<T, index_t, Sampler><<<blocks_for(count), kThreads, 0, stream>>>(
            static_cast<index_t>(count), from, bins, sampler, to, in, nhwc);
      });
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace cv::roi
