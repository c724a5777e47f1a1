// RoIPool on CUDA. One thread has one bin of one channel, or of a pack of 16 bytes of channels where the map is
// stored channels last; see common/roi.cuh.
//
// Gradients are summed by atomics in opmath dtype. The deterministic kernel gives each row of the map to one warp
// per 32 channels, which adds box after box.

#include <cuda/std/limits>
#include <tuple>

#include "../common/roi.cuh"
#include "roi_pool_args.h"

namespace cv::roi_pool {
namespace {

using roi::in_layout;
using roi::Layout;
using roi::load_pack;
using roi::Place;

// The first of equal pixels counts; NaN is taken, and then kept, as on the CPU.
template <typename T, int N, typename index_t>
__global__ void pool_kernel(index_t count, const T* CV_RESTRICT input, Layout in, const opmath_t<T>* CV_RESTRICT rois,
                            T* CV_RESTRICT output, int32_t* CV_RESTRICT argmax, Layout out, Params p, bool nhwc) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(index_t, i, count) {
    const Place at = Place::of(i, p, static_cast<index_t>(p.channels / N), nhwc, N);
    const Region r = make_region(rois + at.region * 5, p);
    A best[N];
    int32_t which[N];
#pragma unroll
    for (int n = 0; n < N; ++n) {
      best[n] = r.image < 0 ? cuda::std::numeric_limits<A>::quiet_NaN() : A(0);
      which[n] = -1;
    }
    if (r.image >= 0) {
      const T* map = input + in.at(r.image, at.channel, 0);
      const Span ys = r.y.span(at.ph, p.pooled_h), xs = r.x.span(at.pw, p.pooled_w);
      for (int32_t y = ys.begin; y < ys.end; ++y) {
        for (int32_t x = xs.begin; x < xs.end; ++x) {
          const auto pixel = static_cast<int32_t>(y * p.width + x);
          const Pack<T, N> v = load_pack<T, N>(map + pixel * in.pixel);
#pragma unroll
          for (int n = 0; n < N; ++n) {
            const A a = static_cast<A>(v.v[n]);
            const bool take = a > best[n] || a != a || which[n] < 0;
            best[n] = take ? a : best[n];
            which[n] = take ? pixel : which[n];
          }
        }
      }
    }
    const int64_t to = out.at(at.region, at.channel, at.bin(p));
    Pack<T, N> result;
#pragma unroll
    for (int n = 0; n < N; ++n) result.v[n] = static_cast<T>(best[n]);
    *reinterpret_cast<Pack<T, N>*>(output + to) = result;
    constexpr int kIndices = N < 4 ? N : 4;  // 16 bytes
#pragma unroll
    for (int n = 0; n < N; n += kIndices) {
      Pack<int32_t, kIndices> indices;
#pragma unroll
      for (int j = 0; j < kIndices; ++j) indices.v[j] = which[n + j];
      *reinterpret_cast<Pack<int32_t, kIndices>*>(argmax + to + n) = indices;
    }
  }
}

// grad_input (opmath dtype, zero before) in layout `in`; grad and argmax in layout `out`.
template <typename T, typename index_t>
__global__ void backward_kernel(index_t count, const T* CV_RESTRICT grad, const int32_t* CV_RESTRICT argmax,
                                Layout out, const opmath_t<T>* CV_RESTRICT rois, opmath_t<T>* grad_input, Layout in,
                                Params p, bool nhwc) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(index_t, i, count) {
    const Place at = Place::of(i, p, static_cast<index_t>(p.channels), nhwc, 1);
    const int64_t from = out.at(at.region, at.channel, at.bin(p)), image = roi::image_of(rois[at.region * 5], p.batch);
    const int32_t pixel = argmax[from];
    if (image < 0 || pixel < 0 || pixel >= p.plane()) continue;
    atomic_add(grad_input + in.at(image, at.channel, pixel), static_cast<A>(grad[from]));
  }
}

template <typename T>
__global__ void ordered_backward_kernel(int64_t regions, const T* CV_RESTRICT grad, const int32_t* CV_RESTRICT argmax,
                                        Layout out, const opmath_t<T>* CV_RESTRICT rois, opmath_t<T>* grad_input,
                                        Layout in, Params p) {
  using A = opmath_t<T>;
  const int lane = threadIdx.x % 32;
  const int64_t slabs = (p.channels + 31) / 32, tasks = p.batch * p.height * slabs;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; task < tasks;
       task += warps) {
    const int64_t c = task % slabs * 32 + lane, row = task / slabs % p.height, b = task / slabs / p.height;
    if (c >= p.channels) continue;
    const int64_t begin = row * p.width, end = begin + p.width;
    A* to = grad_input + in.at(b, c, 0);
    for (int64_t k = 0; k < regions; ++k) {
      if (roi::image_of(rois[k * 5], p.batch) != b) continue;
      for (int64_t bin = 0; bin < p.bins(); ++bin) {
        const int64_t from = out.at(k, c, bin);
        const int32_t pixel = argmax[from];
        if (pixel >= begin && pixel < end) to[pixel * in.pixel] += static_cast<A>(grad[from]);
      }
    }
  }
}

std::tuple<Tensor, Tensor> roi_pool_cuda(const Tensor& input, const Tensor& rois, double spatial_scale,
                                         int64_t pooled_h, int64_t pooled_w) {
  const Params p = make_params(input, rois, spatial_scale, pooled_h, pooled_w);
  CudaScope scope(input);
  const bool nhwc = is_channels_last(input);
  const Tensor x = in_layout(input, nhwc), regions = region_tensor(rois, input.scalar_type());
  Tensor out = empty_4d(input, rois.size(0), p.channels, pooled_h, pooled_w, input.scalar_type(), nhwc);
  Tensor argmax = empty_4d(input, rois.size(0), p.channels, pooled_h, pooled_w, ScalarType::Int, nhwc);
  if (out.numel() == 0) return {out, argmax};
  dispatch_float(input.scalar_type(), "roi_pool", [&](auto t) {
    using T = typename decltype(t)::type;
    constexpr int kPack = 16 / sizeof(T);
    const T* from = x.const_data_ptr<T>();
    const auto* boxes = regions.const_data_ptr<opmath_t<T>>();
    T* to = out.mutable_data_ptr<T>();
    int32_t* index = argmax.mutable_data_ptr<int32_t>();
    const bool wide = nhwc && p.channels % kPack == 0 && aligned_to(from, 16) && aligned_to(to, 16) &&
                      aligned_to(index, 16);
    const Layout in = Layout::make(p.channels, p.plane(), nhwc), bins = Layout::make(p.channels, p.bins(), nhwc);
    const int64_t count = out.numel() / (wide ? kPack : 1);
    dispatch_index(count, [&](auto i) {
      using index_t = typename decltype(i)::type;
      const auto n = static_cast<index_t>(count);
      if (wide)
        pool_kernel<T, kPack, index_t>
            <<<blocks_for(count), kThreads, 0, scope.stream>>>(n, from, in, boxes, to, index, bins, p, nhwc);
      else
        pool_kernel<T, 1, index_t>
            <<<blocks_for(count), kThreads, 0, scope.stream>>>(n, from, in, boxes, to, index, bins, p, nhwc);
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {out, argmax};
}

Tensor roi_pool_backward_cuda(const Tensor& grad, const Tensor& rois, const Tensor& argmax, int64_t n, int64_t c,
                              int64_t h, int64_t w, bool channels_last_input, bool deterministic) {
  const Params p = backward_params(grad, rois, argmax, n, c, h, w);
  CudaScope scope(grad);
  const ScalarType dtype = grad.scalar_type();
  const bool nhwc = channels_last_input;
  Tensor grad_input = empty_4d(grad, n, c, h, w, opmath_dtype(dtype), nhwc);
  zero_(grad_input);
  if (grad.numel() == 0 || grad_input.numel() == 0) return to_dtype(grad_input, dtype);
  const Tensor g = in_layout(grad, nhwc), at = in_layout(argmax, nhwc), regions = region_tensor(rois, dtype);
  dispatch_float(dtype, "roi_pool_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const T* from = g.const_data_ptr<T>();
    const int32_t* index = at.const_data_ptr<int32_t>();
    const A* boxes = regions.const_data_ptr<A>();
    A* to = grad_input.mutable_data_ptr<A>();
    const Layout in = Layout::make(p.channels, p.plane(), nhwc), bins = Layout::make(p.channels, p.bins(), nhwc);
    const int64_t count = grad.numel();
    if (deterministic) {
      const int64_t threads = p.batch * p.height * ((p.channels + 31) / 32) * 32;
      ordered_backward_kernel<T>
          <<<blocks_for(threads), kThreads, 0, scope.stream>>>(rois.size(0), from, index, bins, boxes, to, in, p);
    } else {
      dispatch_index(count, [&](auto i) {
        using index_t = typename decltype(i)::type;
        backward_kernel<T, index_t><<<blocks_for(count), kThreads, 0, scope.stream>>>(
            static_cast<index_t>(count), from, index, bins, boxes, to, in, p, nhwc);
      });
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return to_dtype(grad_input, dtype);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("roi_pool", CV_BOX(&roi_pool_cuda));
  m.impl("roi_pool_backward", CV_BOX(&roi_pool_backward_cuda));
}

}  // namespace cv::roi_pool
