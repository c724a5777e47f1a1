// softmax_focal_loss on CUDA: G neighbouring lanes of a warp share a row, so that the loads of a warp touch
// neighbouring addresses whatever the number of classes is. A row is read from memory once and then from L1.
// Floor: the logits read once, and for the backward the gradients written once. Sums are combined in a fixed
// order, so the result is the same in every run.

#include <cstdint>
#include <limits>
#include <tuple>

#include "../common/cuda_utils.cuh"
#include "../common/reduction.cuh"
#include "softmax_focal_loss_args.h"

namespace cv::softmax_focal_loss {
namespace {

template <typename T>
struct Args {
  const T* input;
  const int64_t* target;
  const T* weight;  // or null
  int64_t rows, classes;
  opmath_t<T> gamma, alpha;
};

// Over groups of G lanes; every lane of the warp takes part.
template <int G, typename A> __device__ __forceinline__ A group_sum(A v) {
#pragma unroll
  for (int offset = G / 2; offset > 0; offset >>= 1) v += __shfl_xor_sync(0xffffffffu, v, offset);
  return v;
}
template <int G, typename A> __device__ __forceinline__ A group_max(A v) {
#pragma unroll
  for (int offset = G / 2; offset > 0; offset >>= 1) {
    const A other = __shfl_xor_sync(0xffffffffu, v, offset);
    v = other > v ? other : v;
  }
  return v;
}

template <typename A> __device__ __forceinline__ Terms<A> any_terms(A gap, A others, A gamma) {
  return gamma == A(2) ? terms<true>(gap, others, gamma) : terms<false>(gap, others, gamma);
}

// a of a row, and its label: -1 without one in range.
template <typename T>
struct Label {
  int64_t index;
  opmath_t<T> a;

  __device__ __forceinline__ Label(const Args<T>& p, int64_t row) : index(p.target[row]), a(p.alpha) {
    if (index < 0 || index >= p.classes) index = -1;
    if (p.weight != nullptr && index >= 0) a *= static_cast<opmath_t<T>>(p.weight[index]);
  }
};

// visit(row, loss) for all rows, by the first lane of each row's group; also writes stats.
template <int G, typename T, typename F>
__device__ __forceinline__ void for_each_row(const Args<T>& p, opmath_t<T>* stats, F&& visit) {
  using A = opmath_t<T>;
  const int lane = threadIdx.x % G;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * (blockDim.x / G);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * (blockDim.x / G);
  // All threads of the block make the same number of turns, since groups exchange values by whole warps. A group
  // that has no row left repeats the last one and does not visit it.
  for (int64_t base = first; base < p.rows; base += stride) {
    const int64_t row = base + threadIdx.x / G, safe = row < p.rows ? row : p.rows - 1;
    const T* x = p.input + safe * p.classes;
    const Label<T> label(p, safe);
    const int64_t t = label.index < 0 ? 0 : label.index;
    A m = -std::numeric_limits<A>::infinity();
    for (int64_t c = lane; c < p.classes; c += G) {
      const A value = static_cast<A>(x[c]);
      m = value > m ? value : m;
    }
    m = group_max<G>(m);
    A others = 0;
    for (int64_t c = lane; c < p.classes; c += G) others += c == t ? A(0) : fast_exp(static_cast<A>(x[c]) - m);
    others = group_sum<G>(others);
    if (lane == 0 && row < p.rows) {
      stats[row] = m;
      stats[p.rows + row] = others;
      visit(row, label.index < 0 ? A(0) : loss(any_terms(m - static_cast<A>(x[t]), others, p.gamma), label.a));
    }
  }
}

template <int G, typename T>
__global__ void losses_kernel(Args<T> p, opmath_t<T>* stats, T* out) {
  for_each_row<G>(p, stats, [&](int64_t row, opmath_t<T> loss) { out[row] = static_cast<T>(loss); });
}

template <int G, typename T>
__global__ void sum_kernel(Args<T> p, opmath_t<T>* stats, opmath_t<T>* partial) {
  opmath_t<T> sum = 0;
  for_each_row<G>(p, stats, [&](int64_t, opmath_t<T> loss) { sum += loss; });
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// grad: one per row (by_row), or a single one for a reduced loss.
template <int G, typename T>
__global__ void gradients_kernel(Args<T> p, const opmath_t<T>* stats, const T* grad, bool by_row, opmath_t<T> scale,
                                 T* out) {
  using A = opmath_t<T>;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * (blockDim.x / G);
  int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / G) + threadIdx.x / G;
  for (; row < p.rows; row += stride) {
    const T* x = p.input + row * p.classes;
    T* y = out + row * p.classes;
    const Label<T> label(p, row);
    const A m = stats[row], g = static_cast<A>(grad[by_row ? row : 0]) * scale;
    const Terms<A> r = any_terms(m - static_cast<A>(x[label.index < 0 ? 0 : label.index]), stats[p.rows + row], p.gamma);
    const A d = slope(r, label.a * g, p.gamma), factor = -d / r.total;
    for (int64_t c = threadIdx.x % G; c < p.classes; c += G) {
      const A value = c == label.index ? d * r.q : factor * fast_exp(static_cast<A>(x[c]) - m);
      y[c] = static_cast<T>(label.index < 0 ? A(0) : value);
    }
  }
}

// f(integral_constant G)
template <typename F>
void dispatch_group(int64_t classes, F&& f) {
  if (classes <= 4) return f(std::integral_constant<int, 1>{});
  if (classes <= 48) return f(std::integral_constant<int, 8>{});
  f(std::integral_constant<int, 32>{});
}

unsigned blocks_for_rows(int64_t rows, int group) {
  const int64_t per_block = kThreads / group, blocks = (rows + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < (1 << 20) ? blocks : (1 << 20));
}

template <typename T>
Args<T> make_args(const Tensor& x, const Tensor& t, const std::optional<Tensor>& w, double gamma, double alpha) {
  return {x.const_data_ptr<T>(), t.const_data_ptr<int64_t>(), w ? w->const_data_ptr<T>() : nullptr,
          x.size(0), x.size(1), opmath_t<T>(gamma), opmath_t<T>(alpha)};
}

std::tuple<Tensor, Tensor> forward_cuda(const Tensor& input, const Tensor& target,
                                        const std::optional<Tensor>& weight, double gamma, double alpha,
                                        int64_t reduction) {
  check(input, target, weight, gamma);
  const CudaScope scope(input);
  const Tensor x = as_contiguous(input), t = as_contiguous(target);
  const std::optional<Tensor> w = contiguous_or_none(weight);
  if (x.numel() == 0)
    return {reduction == kNone ? torch::stable::new_zeros(x, {x.size(0)}, x.scalar_type())
                               : torch::stable::new_zeros(x, {}, x.scalar_type()),
            torch::stable::new_zeros(x, {2, x.size(0)}, opmath_dtype(x.scalar_type()))};
  const Tensor out = empty_loss(x, reduction), stats = empty_stats(x);
  dispatch_float(x.scalar_type(), "softmax_focal_loss", [&](auto type) {
    using T = typename decltype(type)::type;
    using A = opmath_t<T>;
    const Args<T> args = make_args<T>(x, t, w, gamma, alpha);
    T* op = out.mutable_data_ptr<T>();
    A* sp = stats.mutable_data_ptr<A>();
    dispatch_group(args.classes, [&](auto group) {
      constexpr int G = decltype(group)::value;
      const unsigned wanted = blocks_for_rows(args.rows, G);
      if (reduction == kNone) {
        losses_kernel<G><<<wanted, kThreads, 0, scope.stream>>>(args, sp, op);
        STD_CUDA_KERNEL_LAUNCH_CHECK();
        return;
      }
      const unsigned blocks = wanted < kMaxSumBlocks ? wanted : kMaxSumBlocks;
      const Tensor partial = empty_beside(x, {static_cast<int64_t>(blocks)}, stats.scalar_type());
      sum_kernel<G><<<blocks, kThreads, 0, scope.stream>>>(args, sp, partial.mutable_data_ptr<A>());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      finish_sum_kernel<T><<<1, kThreads, 0, scope.stream>>>(partial.const_data_ptr<A>(), static_cast<int>(blocks),
                                                             reduction_scale(reduction, args.rows), op);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return {out, stats};
}

Tensor backward_cuda(const Tensor& grad, const Tensor& input, const Tensor& target,
                     const std::optional<Tensor>& weight, const Tensor& stats, double gamma, double alpha,
                     int64_t reduction) {
  check(input, target, weight, gamma);
  check_backward(grad, stats, input, reduction);
  const CudaScope scope(input);
  const Tensor g = as_contiguous(grad), x = as_contiguous(input), t = as_contiguous(target), s = as_contiguous(stats);
  const std::optional<Tensor> w = contiguous_or_none(weight);
  const Tensor out = empty_beside(x, {x.size(0), x.size(1)}, x.scalar_type());
  if (x.numel() == 0) return out;
  dispatch_float(x.scalar_type(), "softmax_focal_loss_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    using A = opmath_t<T>;
    const Args<T> args = make_args<T>(x, t, w, gamma, alpha);
    const bool by_row = reduction == kNone;
    const double scale = by_row ? 1.0 : reduction_scale(reduction, args.rows);
    dispatch_group(args.classes, [&](auto group) {
      constexpr int G = decltype(group)::value;
      gradients_kernel<G><<<blocks_for_rows(args.rows, G), kThreads, 0, scope.stream>>>(
          args, s.const_data_ptr<A>(), g.const_data_ptr<T>(), by_row, static_cast<A>(scale), out.mutable_data_ptr<T>());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("softmax_focal_loss", CV_BOX(&forward_cuda));
  m.impl("softmax_focal_loss_backward", CV_BOX(&backward_cuda));
}

}  // namespace cv::softmax_focal_loss
