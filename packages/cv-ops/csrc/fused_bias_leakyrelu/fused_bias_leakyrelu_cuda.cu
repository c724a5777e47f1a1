// fused_bias_leakyrelu on CUDA: one pass over memory, 16 bytes at a time where addresses and shape allow it.
// Floor: input read and output written once; backward, gradient and output read, gradient written.
//
// The gradient of the bias comes from the same pass: partial sums of each channel, added up in a fixed order by
// a second, small kernel. No atomics: the same result in every run.

#include <algorithm>
#include <tuple>

#include "../common/cuda_utils.cuh"
#include "fused_bias_leakyrelu_args.h"

namespace cv::fused_bias_leakyrelu {
namespace {

constexpr int64_t kPiece = 4096;  // elements of a plane that one warp takes

template <int V, typename T, typename index_t>
__global__ void forward_kernel(const T* __restrict__ x, const T* __restrict__ bias, const T* __restrict__ sign,
                               index_t packs, index_t channels, index_t inner, Factors<opmath_t<T>> f,
                               T* __restrict__ out) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(index_t, i, packs) {
    const index_t first = i * V;
    // V elements share a channel (inner is a multiple of V) or have V channels in a row (inner is 1).
    const index_t c = inner == 1 ? first % channels : first / inner % channels;
    const Pack<T, V> in = *reinterpret_cast<const Pack<T, V>*>(x + first);
    Pack<T, V> signs = in;
    if (sign != nullptr) signs = *reinterpret_cast<const Pack<T, V>*>(sign + first);
    Pack<T, V> y;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const A z = static_cast<A>(in.v[k]) + static_cast<A>(bias[inner == 1 ? c + k : c]);
      y.v[k] = static_cast<T>(z * f(sign != nullptr ? static_cast<A>(signs.v[k]) : z));
    }
    *reinterpret_cast<Pack<T, V>*>(out + first) = y;
  }
}

// One warp per piece of a plane; partial is (outer, channels, pieces).
template <int V, typename T>
__global__ void planes_backward_kernel(const T* __restrict__ grad, const T* __restrict__ y, int64_t tasks,
                                       int64_t pieces, int64_t inner, Factors<opmath_t<T>> f, T* __restrict__ out,
                                       opmath_t<T>* __restrict__ partial) {
  using A = opmath_t<T>;
  const int lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t task = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32; task < tasks; task += warps) {
    const int64_t plane = task / pieces, begin = (task - plane * pieces) * kPiece;
    const int n = static_cast<int>(inner - begin < kPiece ? inner - begin : kPiece);
    const int64_t at = plane * inner + begin;
    A sum = A(0);
    for (int i = lane * V; i < n; i += 32 * V) {  // n is a multiple of V
      const Pack<T, V> g = *reinterpret_cast<const Pack<T, V>*>(grad + at + i);
      const Pack<T, V> s = *reinterpret_cast<const Pack<T, V>*>(y + at + i);
      Pack<T, V> result;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const A v = static_cast<A>(g.v[k]) * f(static_cast<A>(s.v[k]));
        result.v[k] = static_cast<T>(v);
        sum += v;
      }
      *reinterpret_cast<Pack<T, V>*>(out + at + i) = result;
    }
    sum = warp_sum(sum);
    if (lane == 0) partial[task] = sum;
  }
}

// Channels side by side: 32 of them by 8 rows per block, a stretch of rows each; partial is (stretches, channels).
constexpr int kRowsOfBlock = 8;
constexpr int64_t kStretch = 256;

template <typename T>
__global__ void rows_backward_kernel(const T* __restrict__ grad, const T* __restrict__ y, int64_t rows,
                                     int64_t channels, int64_t tasks, int64_t channel_blocks, Factors<opmath_t<T>> f,
                                     T* __restrict__ out, opmath_t<T>* __restrict__ partial) {
  using A = opmath_t<T>;
  __shared__ A sums[kRowsOfBlock][33];
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const int64_t stretch = task / channel_blocks, c = (task - stretch * channel_blocks) * 32 + lane;
    const int64_t end = (stretch + 1) * kStretch < rows ? (stretch + 1) * kStretch : rows;
    A sum = A(0);
    if (c < channels) {
      for (int64_t r = stretch * kStretch + row; r < end; r += kRowsOfBlock) {
        const int64_t i = r * channels + c;
        const A v = static_cast<A>(grad[i]) * f(static_cast<A>(y[i]));
        out[i] = static_cast<T>(v);
        sum += v;
      }
    }
    sums[row][lane] = sum;
    __syncthreads();
    if (row == 0 && c < channels) {
      for (int k = 1; k < kRowsOfBlock; ++k) sum += sums[k][lane];
      partial[stretch * channels + c] = sum;
    }
    __syncthreads();
  }
}

// One block per channel: the sum of partial (outer, channels, pieces) over the first and last axis.
template <typename T>
__global__ void finish_kernel(const opmath_t<T>* __restrict__ partial, int64_t outer, int64_t channels, int64_t pieces,
                              T* __restrict__ out) {
  __shared__ double warps[kThreads / 32];
  for (int64_t c = blockIdx.x; c < channels; c += gridDim.x) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < outer * pieces; i += blockDim.x)
      sum += static_cast<double>(partial[(i / pieces * channels + c) * pieces + i % pieces]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int k = 1; k < kThreads / 32; ++k) sum += warps[k];
      out[c] = static_cast<T>(static_cast<opmath_t<T>>(sum));
    }
    __syncthreads();
  }
}

inline unsigned capped(int64_t blocks) { return static_cast<unsigned>(std::min<int64_t>(blocks, 1 << 20)); }

Tensor forward_cuda(const Tensor& input, const Tensor& bias, const std::optional<Tensor>& output, double slope,
                    double scale) {
  check(input, bias, output);
  check_numbers(slope, scale);
  const CudaScope scope(input);
  const bool nhwc = is_channels_last(input);
  const Tensor x = in_layout(input, nhwc), b = as_contiguous(bias);
  std::optional<Tensor> sign;
  if (output) sign = in_layout(*output, nhwc);
  const Tensor out = empty_with_layout_of(x);
  if (x.numel() == 0) return out;
  const Shape s = Shape::of(x, nhwc);
  dispatch_float(x.scalar_type(), "fused_bias_leakyrelu", [&](auto type) {
    using T = typename decltype(type)::type;
    const T *xp = x.const_data_ptr<T>(), *bp = b.const_data_ptr<T>();
    const T* sp = sign ? sign->const_data_ptr<T>() : nullptr;
    T* op = out.mutable_data_ptr<T>();
    const auto f = make_factors<opmath_t<T>>(slope, scale);
    constexpr int wide = 16 / sizeof(T);
    const bool fits = (s.inner == 1 ? s.channels : s.inner) % wide == 0 && aligned_to(xp, 16) && aligned_to(sp, 16) &&
                      aligned_to(op, 16);
    dispatch_index(s.numel(), [&](auto index) {
      using index_t = typename decltype(index)::type;
      const auto launch = [&](auto width) {
        constexpr int V = decltype(width)::value;
        const int64_t packs = s.numel() / V;
        forward_kernel<V, T, index_t><<<blocks_for(packs), kThreads, 0, scope.stream>>>(
            xp, bp, sp, static_cast<index_t>(packs), static_cast<index_t>(s.channels), static_cast<index_t>(s.inner),
            f, op);
      };
      if (fits)
        launch(std::integral_constant<int, wide>{});
      else
        launch(std::integral_constant<int, 1>{});
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> backward_cuda(const Tensor& grad, const Tensor& output, double slope, double scale) {
  check(grad, std::nullopt, output);
  const CudaScope scope(output);
  const bool nhwc = is_channels_last(output);
  const Tensor g = in_layout(grad, nhwc), y = in_layout(output, nhwc);
  const Tensor grad_input = empty_with_layout_of(y);
  if (y.numel() == 0) return {grad_input, torch::stable::new_zeros(y, {y.size(1)}, y.scalar_type())};
  const Tensor grad_bias = empty_beside(y, {y.size(1)}, y.scalar_type());
  const Shape s = Shape::of(y, nhwc);
  const bool rows = s.inner == 1;
  const int64_t outer = rows ? (s.outer + kStretch - 1) / kStretch : s.outer;
  const int64_t pieces = rows ? 1 : (s.inner + kPiece - 1) / kPiece;
  const Tensor partial = empty_beside(y, {outer, s.channels, pieces}, opmath_dtype(y.scalar_type()));
  dispatch_float(y.scalar_type(), "fused_bias_leakyrelu_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    const T *gp = g.const_data_ptr<T>(), *yp = y.const_data_ptr<T>();
    T* op = grad_input.mutable_data_ptr<T>();
    opmath_t<T>* pp = partial.mutable_data_ptr<opmath_t<T>>();
    const auto f = make_factors<opmath_t<T>>(slope, scale);
    constexpr int wide = 16 / sizeof(T);
    if (rows) {
      const int64_t channel_blocks = (s.channels + 31) / 32, tasks = outer * channel_blocks;
      rows_backward_kernel<<<capped(tasks), 32 * kRowsOfBlock, 0, scope.stream>>>(gp, yp, s.outer, s.channels, tasks,
                                                                                 channel_blocks, f, op, pp);
    } else {
      const int64_t tasks = s.outer * s.channels * pieces;
      const unsigned blocks = capped((tasks + kThreads / 32 - 1) / (kThreads / 32));
      if (s.inner % wide == 0 && aligned_to(gp, 16) && aligned_to(yp, 16) && aligned_to(op, 16))
        planes_backward_kernel<wide>
            <<<blocks, kThreads, 0, scope.stream>>>(gp, yp, tasks, pieces, s.inner, f, op, pp);
      else
        planes_backward_kernel<1><<<blocks, kThreads, 0, scope.stream>>>(gp, yp, tasks, pieces, s.inner, f, op, pp);
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    finish_kernel<T><<<capped(s.channels), kThreads, 0, scope.stream>>>(pp, outer, s.channels, pieces,
                                                                       grad_bias.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {grad_input, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("fused_bias_leakyrelu", CV_BOX(&forward_cuda));
  m.impl("fused_bias_leakyrelu_backward", CV_BOX(&backward_cuda));
}

}  // namespace cv::fused_bias_leakyrelu
