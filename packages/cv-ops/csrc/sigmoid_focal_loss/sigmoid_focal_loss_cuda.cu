// sigmoid_focal_loss on CUDA: one pass over the logits, 16 bytes at a time where the address allows it.
// Floor: the logits read once, the losses or gradients written once. With a reduction the forward only
// reads; block sums are combined in a fixed order, so the result is the same in every run.

#include <cstdint>

#include "../common/cuda_utils.cuh"
#include "../common/reduction.cuh"
#include "sigmoid_focal_loss_args.h"

namespace cv::sigmoid_focal_loss {
namespace {

template <typename T>
struct Args {
  const T* input;
  const int64_t* target;
  const T* weight;  // or null
  int64_t classes, n;  // n: all logits
  opmath_t<T> gamma, alpha;
};

// visit(k, z, a) for the V logits from `first` on, all in range. kSigned: a carries dz/dx.
template <bool kSigned, int V, typename T, typename F>
__device__ __forceinline__ void for_each_logit(const Args<T>& p, int64_t first, F&& visit) {
  using A = opmath_t<T>;
  const Pack<T, V> x = *reinterpret_cast<const Pack<T, V>*>(p.input + first);
  // One division per V logits, in 32 bits where that will do (a 64-bit one is ten times dearer).
  int64_t row = p.n <= INT32_MAX ? static_cast<uint32_t>(first) / static_cast<uint32_t>(p.classes) : first / p.classes;
  int64_t c = first - row * p.classes;
  int64_t label = p.target[row];
  bool known = label >= 0 && label < p.classes;
  A w = p.weight != nullptr && known ? static_cast<A>(p.weight[label]) : A(1);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    if (c == p.classes) {
      c = 0;
      label = p.target[++row];
      known = label >= 0 && label < p.classes;
      w = p.weight != nullptr && known ? static_cast<A>(p.weight[label]) : A(1);
    }
    const bool positive = known && c == label;
    const A value = static_cast<A>(x.v[k]);
    const A negative_a = kSigned ? p.alpha - A(1) : A(1) - p.alpha;
    visit(k, positive ? value : -value, (positive ? p.alpha : negative_a) * w);
    ++c;
  }
}

// Which of the two formulas is the same for all threads: a branch costs nothing, a second kernel compile time.
template <typename A> __device__ __forceinline__ A any_loss(A z, A a, A gamma) {
  return gamma == A(2) ? loss<true>(z, a, gamma) : loss<false>(z, a, gamma);
}
template <typename A> __device__ __forceinline__ A any_derivative(A z, A a, A gamma) {
  return gamma == A(2) ? loss_derivative<true>(z, a, gamma) : loss_derivative<false>(z, a, gamma);
}

template <int V, typename T>
__global__ void losses_kernel(Args<T> p, T* out) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, p.n / V) {
    Pack<T, V> y;
    for_each_logit<false, V>(p, i * V, [&](int k, A z, A a) { y.v[k] = static_cast<T>(any_loss(z, a, p.gamma)); });
    *reinterpret_cast<Pack<T, V>*>(out + i * V) = y;
  }
}

// grad: one per logit (elementwise), or a single one for a reduced loss.
template <int V, typename T>
__global__ void derivatives_kernel(Args<T> p, const T* grad, bool elementwise, opmath_t<T> scale, T* out) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, p.n / V) {
    Pack<T, V> g;
    if (elementwise) {
      g = *reinterpret_cast<const Pack<T, V>*>(grad + i * V);
    } else {
      const T single = *grad;
#pragma unroll
      for (int k = 0; k < V; ++k) g.v[k] = single;
    }
    Pack<T, V> y;
    for_each_logit<true, V>(p, i * V, [&](int k, A z, A a) {
      y.v[k] = static_cast<T>(any_derivative(z, a, p.gamma) * (static_cast<A>(g.v[k]) * scale));
    });
    *reinterpret_cast<Pack<T, V>*>(out + i * V) = y;
  }
}

template <int V, typename T>
__global__ void sum_kernel(Args<T> p, opmath_t<T>* partial) {
  using A = opmath_t<T>;
  A sum = 0;
  CV_GRID_LOOP(int64_t, i, p.n / V)
    for_each_logit<false, V>(p, i * V, [&](int, A z, A a) { sum += any_loss(z, a, p.gamma); });
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// f(integral_constant V): the widest access that all addresses and the count allow.
template <typename T, typename F>
void dispatch_width(const Args<T>& p, const void* out, const void* grad, F&& f) {
  constexpr int wide = 16 / sizeof(T);
  if (p.n % wide == 0 && aligned_to(p.input, 16) && aligned_to(out, 16) && aligned_to(grad, 16))
    f(std::integral_constant<int, wide>{});
  else
    f(std::integral_constant<int, 1>{});
}

template <typename T>
Args<T> make_args(const Tensor& x, const Tensor& t, const std::optional<Tensor>& w, double gamma, double alpha) {
  return {x.const_data_ptr<T>(), t.const_data_ptr<int64_t>(), w ? w->const_data_ptr<T>() : nullptr,
          x.size(1), x.numel(), opmath_t<T>(gamma), opmath_t<T>(alpha)};
}

std::optional<Tensor> contiguous_or_none(const std::optional<Tensor>& t) {
  return t ? std::optional<Tensor>(as_contiguous(*t)) : std::nullopt;
}

Tensor forward_cuda(const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight, double gamma,
                    double alpha, int64_t reduction) {
  check(input, target, weight, gamma);
  const CudaScope scope(input);
  const Tensor x = as_contiguous(input), t = as_contiguous(target);
  const std::optional<Tensor> w = contiguous_or_none(weight);
  if (x.numel() == 0)
    return reduction == kNone ? empty_beside(x, {x.size(0), x.size(1)}, x.scalar_type())
                              : Tensor(torch::stable::new_zeros(x, {}, x.scalar_type()));
  const Tensor out = reduction == kNone ? empty_beside(x, {x.size(0), x.size(1)}, x.scalar_type())
                                        : empty_beside(x, {}, x.scalar_type());
  dispatch_float(x.scalar_type(), "sigmoid_focal_loss", [&](auto type) {
    using T = typename decltype(type)::type;
    const Args<T> args = make_args<T>(x, t, w, gamma, alpha);
    T* op = out.mutable_data_ptr<T>();
    dispatch_width(args, reduction == kNone ? op : nullptr, nullptr, [&](auto width) {
      constexpr int V = decltype(width)::value;
      if (reduction == kNone) {
        losses_kernel<V><<<blocks_for(args.n / V), kThreads, 0, scope.stream>>>(args, op);
        STD_CUDA_KERNEL_LAUNCH_CHECK();
        return;
      }
      const unsigned wanted = blocks_for(args.n / V), blocks = wanted < kMaxSumBlocks ? wanted : kMaxSumBlocks;
      const Tensor partial = empty_beside(x, {static_cast<int64_t>(blocks)}, opmath_dtype(x.scalar_type()));
      opmath_t<T>* partial_p = partial.mutable_data_ptr<opmath_t<T>>();
      sum_kernel<V><<<blocks, kThreads, 0, scope.stream>>>(args, partial_p);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      finish_sum_kernel<T><<<1, kThreads, 0, scope.stream>>>(partial_p, static_cast<int>(blocks),
                                                             reduction_scale(reduction, x.size(0)), op);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

Tensor backward_cuda(const Tensor& grad, const Tensor& input, const Tensor& target,
                     const std::optional<Tensor>& weight, double gamma, double alpha, int64_t reduction) {
  check(input, target, weight, gamma);
  check_grad(grad, input, reduction);
  const CudaScope scope(input);
  const Tensor g = as_contiguous(grad), x = as_contiguous(input), t = as_contiguous(target);
  const std::optional<Tensor> w = contiguous_or_none(weight);
  const Tensor out = empty_beside(x, {x.size(0), x.size(1)}, x.scalar_type());
  if (x.numel() == 0) return out;
  dispatch_float(x.scalar_type(), "sigmoid_focal_loss_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    using A = opmath_t<T>;
    const Args<T> args = make_args<T>(x, t, w, gamma, alpha);
    const T* gp = g.const_data_ptr<T>();
    T* op = out.mutable_data_ptr<T>();
    const bool elementwise = reduction == kNone;
    const A scale = static_cast<A>(elementwise ? 1.0 : reduction_scale(reduction, x.size(0)));
    dispatch_width(args, op, elementwise ? gp : nullptr, [&](auto width) {
      constexpr int V = decltype(width)::value;
      const unsigned blocks = blocks_for(args.n / V);
      derivatives_kernel<V><<<blocks, kThreads, 0, scope.stream>>>(args, gp, elementwise, scale, op);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("sigmoid_focal_loss", CV_BOX(&forward_cuda));
  m.impl("sigmoid_focal_loss_backward", CV_BOX(&backward_cuda));
}

}  // namespace cv::sigmoid_focal_loss
