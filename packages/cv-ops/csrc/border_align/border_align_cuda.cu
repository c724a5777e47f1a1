// BorderAlign on CUDA. One thread has one channel of one border of a box. Threads are numbered as the output is
// stored, or, for a map that is stored channels last, with channels first, so that its loads are coalesced.
//
// Gradients are summed by atomics in opmath dtype. The deterministic kernel gives each row of the map, border and
// 32 channels to one warp, which adds box after box.

#include <cuda/std/limits>
#include <tuple>

#include "../common/roi.cuh"
#include "border_align_args.h"

namespace cv::border_align {
namespace {

using roi::Corners;
using roi::in_layout;
using roi::Layout;

struct Place {
  int64_t image, box;
  int32_t channel, border;

  template <typename index_t>
  static __device__ __forceinline__ Place of(index_t i, const Params& p, bool nhwc) {
    const auto channels = static_cast<index_t>(p.channels), boxes = static_cast<index_t>(p.boxes);
    if (nhwc)
      return Place{i / channels / 4 / boxes, i / channels / 4 % boxes, static_cast<int32_t>(i % channels),
                   static_cast<int32_t>(i / channels % 4)};
    return Place{i / 4 / boxes / channels, i / 4 % boxes, static_cast<int32_t>(i / 4 / boxes % channels),
                 static_cast<int32_t>(i % 4)};
  }
  // of the output (N, C, K, 4)
  __device__ __forceinline__ int64_t out(const Params& p) const {
    return ((image * p.channels + channel) * p.boxes + box) * 4 + border;
  }
};

// As on the CPU: the first of equal samples counts; NaN is taken, and then kept.
template <typename T, typename index_t>
__global__ void pool_kernel(index_t count, const T* CV_RESTRICT input, Layout in, const opmath_t<T>* CV_RESTRICT boxes,
                            T* CV_RESTRICT output, int32_t* CV_RESTRICT samples, Params p, bool nhwc) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(index_t, i, count) {
    const Place at = Place::of(i, p, nhwc);
    const Border<A> border = make_border(boxes + 4 * (at.image * p.boxes + at.box), at.border, p);
    A best = cuda::std::numeric_limits<A>::quiet_NaN();
    int32_t which = -1;
    if (border.finite) {
      const T* map = input + in.at(at.image, at.border * p.channels + at.channel, 0);
      best = -cuda::std::numeric_limits<A>::infinity();
      which = 0;
      for (int32_t s = 0; s <= p.pool_size; ++s) {
        Tap<A> ty, tx;
        A v = A(0);
        if (border.tap(s, p, ty, tx)) {
          const Corners<A> c(ty, tx, p.width);
#pragma unroll
          for (int k = 0; k < 4; ++k) v += c.weight[k] * static_cast<A>(map[c.pixel[k] * in.pixel]);
        }
        if (v > best || v != v) {
          best = v;
          which = s;
        }
      }
    }
    output[at.out(p)] = static_cast<T>(best);
    samples[at.out(p)] = which;
  }
}

// grad_input (opmath dtype, zero before) in layout `in`
template <typename T, typename index_t>
__global__ void backward_kernel(index_t count, const T* CV_RESTRICT grad, const int32_t* CV_RESTRICT samples,
                                const opmath_t<T>* CV_RESTRICT boxes, opmath_t<T>* grad_input, Layout in, Params p,
                                bool nhwc) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(index_t, i, count) {
    const Place at = Place::of(i, p, nhwc);
    const Border<A> border = make_border(boxes + 4 * (at.image * p.boxes + at.box), at.border, p);
    const int32_t which = samples[at.out(p)];
    Tap<A> ty, tx;
    if (!border.finite || which < 0 || which > p.pool_size || !border.tap(which, p, ty, tx)) continue;
    const A g = static_cast<A>(grad[at.out(p)]);
    A* map = grad_input + in.at(at.image, at.border * p.channels + at.channel, 0);
    const Corners<A> c(ty, tx, p.width);
#pragma unroll
    for (int k = 0; k < 4; ++k) atomic_add(map + c.pixel[k] * in.pixel, c.weight[k] * g);
  }
}

template <typename T>
__global__ void ordered_backward_kernel(const T* CV_RESTRICT grad, const int32_t* CV_RESTRICT samples,
                                        const opmath_t<T>* CV_RESTRICT boxes, opmath_t<T>* grad_input, Layout in,
                                        Params p) {
  using A = opmath_t<T>;
  const int lane = threadIdx.x % 32;
  const int64_t slabs = (p.channels + 31) / 32, tasks = p.batch * p.height * kBorders * slabs;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; task < tasks;
       task += warps) {
    Place at;
    at.channel = static_cast<int32_t>(task % slabs * 32 + lane);
    at.border = static_cast<int32_t>(task / slabs % kBorders);
    at.image = task / slabs / kBorders / p.height;
    const int64_t row = task / slabs / kBorders % p.height;
    if (at.channel >= p.channels) continue;
    A* to = grad_input + in.at(at.image, at.border * p.channels + at.channel, row * p.width);
    for (at.box = 0; at.box < p.boxes; ++at.box) {
      const Border<A> border = make_border(boxes + 4 * (at.image * p.boxes + at.box), at.border, p);
      const int32_t which = samples[at.out(p)];
      Tap<A> ty, tx;
      if (!border.finite || which < 0 || which > p.pool_size || !border.tap(which, p, ty, tx)) continue;
      A wy = A(0);
      if (ty.low == row) wy += ty.weight_low;
      if (ty.high == row) wy += ty.weight_high;
      if (wy == A(0)) continue;
      const A g = wy * static_cast<A>(grad[at.out(p)]);
      to[tx.low * in.pixel] += tx.weight_low * g;
      to[tx.high * in.pixel] += tx.weight_high * g;
    }
  }
}

std::tuple<Tensor, Tensor> border_align_cuda(const Tensor& input, const Tensor& boxes, int64_t pool_size) {
  const Params p = forward_params(input, boxes, pool_size);
  CudaScope scope(input);
  const bool nhwc = is_channels_last(input);
  const Tensor x = in_layout(input, nhwc), at = box_tensor(boxes, input.scalar_type());
  Tensor out = empty_beside(input, {p.batch, p.channels, p.boxes, kBorders}, input.scalar_type());
  Tensor samples = empty_beside(input, {p.batch, p.channels, p.boxes, kBorders}, ScalarType::Int);
  if (out.numel() == 0) return {out, samples};
  dispatch_float(input.scalar_type(), "border_align", [&](auto t) {
    using T = typename decltype(t)::type;
    const int64_t count = out.numel();
    dispatch_index(count, [&](auto i) {
      using index_t = typename decltype(i)::type;
      pool_kernel<T, index_t><<<blocks_for(count), kThreads, 0, scope.stream>>>(
          static_cast<index_t>(count), x.const_data_ptr<T>(), Layout::make(kBorders * p.channels, p.plane(), nhwc),
          at.const_data_ptr<opmath_t<T>>(), out.mutable_data_ptr<T>(), samples.mutable_data_ptr<int32_t>(), p, nhwc);
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {out, samples};
}

Tensor border_align_backward_cuda(const Tensor& grad, const Tensor& boxes, const Tensor& samples, int64_t pool_size,
                                  int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last_input,
                                  bool deterministic) {
  const Params p = make_params(boxes, n, c, h, w, pool_size);
  check_grad(grad, samples, boxes, p);
  CudaScope scope(grad);
  const ScalarType dtype = grad.scalar_type();
  const bool nhwc = channels_last_input;
  Tensor grad_input = empty_4d(grad, n, c, h, w, opmath_dtype(dtype), nhwc);
  zero_(grad_input);
  if (grad.numel() == 0 || grad_input.numel() == 0) return to_dtype(grad_input, dtype);
  const Tensor g = as_contiguous(grad), which = as_contiguous(samples), at = box_tensor(boxes, dtype);
  dispatch_float(dtype, "border_align_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const Layout in = Layout::make(c, p.plane(), nhwc);
    const T* from = g.const_data_ptr<T>();
    const int32_t* numbers = which.const_data_ptr<int32_t>();
    A* to = grad_input.mutable_data_ptr<A>();
    const int64_t count = grad.numel();
    if (deterministic) {
      const int64_t threads = n * h * kBorders * ((p.channels + 31) / 32) * 32;
      ordered_backward_kernel<T>
          <<<blocks_for(threads), kThreads, 0, scope.stream>>>(from, numbers, at.const_data_ptr<A>(), to, in, p);
    } else {
      dispatch_index(count, [&](auto i) {
        using index_t = typename decltype(i)::type;
        backward_kernel<T, index_t><<<blocks_for(count), kThreads, 0, scope.stream>>>(
            static_cast<index_t>(count), from, numbers, at.const_data_ptr<A>(), to, in, p, nhwc);
      });
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return to_dtype(grad_input, dtype);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("border_align", CV_BOX(&border_align_cuda));
  m.impl("border_align_backward", CV_BOX(&border_align_backward_cuda));
}

}  // namespace cv::border_align
