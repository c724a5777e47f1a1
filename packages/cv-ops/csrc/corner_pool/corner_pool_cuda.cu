// corner_pool on CUDA. Floor: forward one read and one write of the map, backward three reads and one write.
// Where a line's elements lie apart, a thread walks along a line, and the loads of a warp are neighbours. Where they
// are neighbours (inner == 1), a warp walks along a line, 32 elements at a time, with a scan inside. The result is the
// same in every run.

#include "../common/cuda_utils.cuh"
#include "corner_pool.h"
#include "corner_pool_args.h"

namespace cv::corner_pool {
namespace {

constexpr unsigned kAll = 0xffffffffu;

// offset of position j of a walk along a line whose first element is at `line`
struct Walk {
  int64_t length, inner;
  bool backwards;

  __device__ __forceinline__ int64_t at(int64_t line, int64_t j) const {
    return line + (backwards ? length - 1 - j : j) * inner;
  }
};

template <typename T>
__global__ void maximum_across_kernel(const T* __restrict__ x, T* __restrict__ out, int64_t lines, Walk walk) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, lines) {
    const int64_t line = i / walk.inner * walk.inner * walk.length + i % walk.inner;
    A m = static_cast<A>(x[walk.at(line, 0)]);
#pragma unroll 4
    for (int64_t j = 0; j < walk.length; ++j) {
      const A v = static_cast<A>(x[walk.at(line, j)]);
      m = is_record(v, m) ? v : m;
      out[walk.at(line, j)] = static_cast<T>(m);
    }
  }
}

template <typename T>
__global__ void gradient_across_kernel(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ out,
                                       T* __restrict__ grad_x, int64_t lines, Walk walk) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, lines) {
    const int64_t line = i / walk.inner * walk.inner * walk.length + i % walk.inner;
    A sum = 0;
#pragma unroll 4
    for (int64_t j = 0; j < walk.length; ++j) {
      const int64_t at = walk.at(line, j);
      sum += static_cast<A>(grad[at]);
      const bool record = was_record(static_cast<A>(x[at]), static_cast<A>(out[at]));
      grad_x[at] = static_cast<T>(record ? sum : A(0));
      sum = record ? A(0) : sum;
    }
  }
}

// A warp per line of neighbouring elements. All lanes of a warp have the same line, so that they stay together.
template <typename T>
__global__ void maximum_along_kernel(const T* __restrict__ x, T* __restrict__ out, int64_t lines, Walk walk) {
  using A = opmath_t<T>;
  const int lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; i < lines; i += warps) {
    const int64_t line = i * walk.length;
    A before = static_cast<A>(x[walk.at(line, 0)]);
    for (int64_t base = 0; base < walk.length; base += 32) {
      const int64_t j = base + lane;
      A m = static_cast<A>(x[walk.at(line, j < walk.length ? j : walk.length - 1)]);
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const A earlier = __shfl_up_sync(kAll, m, offset);
        if (lane >= offset) m = is_record(m, earlier) ? m : earlier;
      }
      m = is_record(m, before) ? m : before;
      if (j < walk.length) out[walk.at(line, j)] = static_cast<T>(m);
      before = __shfl_sync(kAll, m, 31);
    }
  }
}

// The sum of a lane starts again after each record: a scan of pairs (sum, whether a record is among them).
template <typename T>
__global__ void gradient_along_kernel(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ out,
                                      T* __restrict__ grad_x, int64_t lines, Walk walk) {
  using A = opmath_t<T>;
  const int lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; i < lines; i += warps) {
    const int64_t line = i * walk.length;
    A before = 0;  // what the last chunk left over
    for (int64_t base = 0; base < walk.length; base += 32) {
      const int64_t j = base + lane;
      const bool inside = j < walk.length;
      const int64_t at = walk.at(line, inside ? j : walk.length - 1);
      const bool record = inside && was_record(static_cast<A>(x[at]), static_cast<A>(out[at]));
      A sum = inside ? static_cast<A>(grad[at]) : A(0);
      const unsigned records = __ballot_sync(kAll, record);
      // The lanes from `first` to this one belong together: those after the last record before this lane.
      const unsigned earlier_records = records & ((1u << lane) - 1);
      const int first = earlier_records == 0 ? 0 : 32 - __clz(earlier_records);
      const bool open = earlier_records == 0;
#pragma unroll
      for (int offset = 1; offset < 32; offset *= 2) {
        const A earlier = __shfl_up_sync(kAll, sum, offset);
        if (lane - offset >= first) sum += earlier;
      }
      if (open) sum += before;
      if (inside) grad_x[at] = static_cast<T>(record ? sum : A(0));
      before = __shfl_sync(kAll, record ? A(0) : sum, 31);
    }
  }
}

unsigned blocks_for_warps(int64_t lines) {
  const int64_t per_block = kThreads / 32, blocks = (lines + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < (1 << 20) ? blocks : (1 << 20));
}

Tensor forward_cuda(const Tensor& input, int64_t dim, bool reverse) {
  check(input, dim);
  const CudaScope scope(input);
  const bool nhwc = is_channels_last(input);
  const Tensor x = in_layout(input, nhwc), out = empty_like(x, nhwc);
  if (x.numel() == 0) return out;
  const Lines l = lines_of(x, dim, nhwc);
  const int64_t lines = l.outer * l.inner;
  const Walk walk{l.length, l.inner, reverse};
  dispatch_float(x.scalar_type(), "corner_pool", [&](auto type) {
    using T = typename decltype(type)::type;
    const T* xp = x.const_data_ptr<T>();
    T* op = out.mutable_data_ptr<T>();
    if (l.inner == 1)
      maximum_along_kernel<<<blocks_for_warps(lines), kThreads, 0, scope.stream>>>(xp, op, lines, walk);
    else
      maximum_across_kernel<<<blocks_for(lines), kThreads, 0, scope.stream>>>(xp, op, lines, walk);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

Tensor backward_cuda(const Tensor& grad, const Tensor& input, const Tensor& output, int64_t dim, bool reverse) {
  check(input, dim);
  check_backward(grad, input, output);
  const CudaScope scope(input);
  const bool nhwc = is_channels_last(input);
  const Tensor g = in_layout(grad, nhwc), x = in_layout(input, nhwc), y = in_layout(output, nhwc);
  const Tensor grad_x = empty_like(x, nhwc);
  if (x.numel() == 0) return grad_x;
  const Lines l = lines_of(x, dim, nhwc);
  const int64_t lines = l.outer * l.inner;
  const Walk walk{l.length, l.inner, !reverse};
  dispatch_float(x.scalar_type(), "corner_pool_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    const T *gp = g.const_data_ptr<T>(), *xp = x.const_data_ptr<T>(), *yp = y.const_data_ptr<T>();
    T* op = grad_x.mutable_data_ptr<T>();
    if (l.inner == 1)
      gradient_along_kernel<<<blocks_for_warps(lines), kThreads, 0, scope.stream>>>(gp, xp, yp, op, lines, walk);
    else
      gradient_across_kernel<<<blocks_for(lines), kThreads, 0, scope.stream>>>(gp, xp, yp, op, lines, walk);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_x;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("corner_pool", CV_BOX(&forward_cuda));
  m.impl("corner_pool_backward", CV_BOX(&backward_cuda));
}

}  // namespace cv::corner_pool
