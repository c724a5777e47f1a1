// correlation on CUDA. Neighbouring threads take neighbouring columns, so reads are whole cache lines whatever
// the displacement; the forward kernel uses each number of the first map for four displacements, the backward
// kernel each gradient for four channels. Every result is written by one thread: no atomics, the same result in
// every run.

#include <tuple>

#include "../common/cuda_utils.cuh"
#include "correlation_args.h"

namespace cv::correlation {
namespace {

constexpr int kTogether = 4;

// One thread: kTogether displacements along x of one place.
template <typename T>
__global__ void forward_kernel(Params p, const T* __restrict__ first, const T* __restrict__ second, int64_t out_h,
                               int64_t out_w, int64_t groups, int64_t n, T* __restrict__ out) {
  using A = opmath_t<T>;
  const int64_t patch = p.patch(), plane = p.height * p.width;
  CV_GRID_LOOP(int64_t, thread, n) {
    int64_t rest = thread;
    const int64_t w = rest % out_w;
    rest /= out_w;
    const int64_t h = rest % out_h;
    rest /= out_h;
    const int64_t pw = rest % groups * kTogether;
    rest /= groups;
    const int64_t ph = rest % patch, image = rest / patch;
    const T *a = first + image * p.channels * plane, *b = second + image * p.channels * plane;
    A sums[kTogether] = {};
    for (int64_t i = 0; i < p.kernel; ++i) {
      const int64_t y = p.position(h, i), other = y + p.shift(ph);
      if (y < 0 || y >= p.height || other < 0 || other >= p.height) continue;
      for (int64_t j = 0; j < p.kernel; ++j) {
        const int64_t x = p.position(w, j);
        if (x < 0 || x >= p.width) continue;
        const T *from = a + y * p.width + x, *to = b + other * p.width + x + p.shift(pw);
        bool inside[kTogether];
#pragma unroll
        for (int k = 0; k < kTogether; ++k) {
          const int64_t column = x + p.shift(pw + k);
          inside[k] = pw + k < patch && column >= 0 && column < p.width;
        }
        for (int64_t c = 0; c < p.channels; ++c) {
          const A value = static_cast<A>(from[c * plane]);
#pragma unroll
          for (int k = 0; k < kTogether; ++k)
            if (inside[k]) sums[k] += value * static_cast<A>(to[c * plane + k * p.dilation_patch]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k)
      if (pw + k < patch)
        out[(((image * patch + ph) * patch + pw + k) * out_h + h) * out_w + w] = static_cast<T>(sums[k]);
  }
}

// One thread: one place of kTogether channels. sign 1: the gradient of the first map (`other` is the second).
template <typename T>
__global__ void backward_kernel(Params p, const T* __restrict__ grad, const T* __restrict__ other, int sign,
                                int64_t out_h, int64_t out_w, int64_t groups, int64_t n, T* __restrict__ out) {
  using A = opmath_t<T>;
  const int64_t patch = p.patch(), plane = p.height * p.width;
  CV_GRID_LOOP(int64_t, thread, n) {
    int64_t rest = thread;
    const int64_t x = rest % p.width;
    rest /= p.width;
    const int64_t y = rest % p.height;
    rest /= p.height;
    const int64_t c = rest % groups * kTogether, image = rest / groups;
    const int64_t channels = p.channels - c < kTogether ? p.channels - c : kTogether;
    const T* map = other + (image * p.channels + c) * plane;
    A sums[kTogether] = {};
    for (int64_t ph = 0; ph < patch; ++ph) {
      const int64_t row = y + sign * p.shift(ph);
      if (row < 0 || row >= p.height) continue;
      for (int64_t pw = 0; pw < patch; ++pw) {
        const int64_t column = x + sign * p.shift(pw);
        if (column < 0 || column >= p.width) continue;
        const T* g = grad + ((image * patch + ph) * patch + pw) * out_h * out_w;
        A weight = A(0);  // G of the header, where the first map was read
        for (int64_t i = 0; i < p.kernel; ++i) {
          const int64_t h = p.output_of(sign > 0 ? y : row, i, out_h);
          if (h < 0) continue;
          for (int64_t j = 0; j < p.kernel; ++j) {
            const int64_t w = p.output_of(sign > 0 ? x : column, j, out_w);
            if (w >= 0) weight += static_cast<A>(g[h * out_w + w]);
          }
        }
        const T* from = map + row * p.width + column;
#pragma unroll
        for (int k = 0; k < kTogether; ++k)
          if (k < channels) sums[k] += weight * static_cast<A>(from[k * plane]);
      }
    }
    T* to = out + (image * p.channels + c) * plane + y * p.width + x;
#pragma unroll
    for (int k = 0; k < kTogether; ++k)
      if (k < channels) to[k * plane] = static_cast<T>(sums[k]);
  }
}

Tensor forward_cuda(const Tensor& input1, const Tensor& input2, int64_t kernel, int64_t displacement, int64_t stride,
                    int64_t padding, int64_t dilation, int64_t dilation_patch) {
  const Params p = check(input1, input2, kernel, displacement, stride, padding, dilation, dilation_patch);
  const CudaScope scope(input1);
  const Tensor a = as_contiguous(input1), b = as_contiguous(input2);
  const int64_t out_h = p.out_size(p.height), out_w = p.out_size(p.width);
  const Tensor out = empty_beside(a, {p.batch, p.patch(), p.patch(), out_h, out_w}, a.scalar_type());
  if (out.numel() == 0) return out;
  const int64_t groups = (p.patch() + kTogether - 1) / kTogether;
  const int64_t threads = p.batch * p.patch() * groups * out_h * out_w;
  dispatch_float(a.scalar_type(), "correlation", [&](auto type) {
    using T = typename decltype(type)::type;
    forward_kernel<T><<<blocks_for(threads), kThreads, 0, scope.stream>>>(
        p, a.const_data_ptr<T>(), b.const_data_ptr<T>(), out_h, out_w, groups, threads, out.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

std::tuple<Tensor, Tensor> backward_cuda(const Tensor& grad, const Tensor& input1, const Tensor& input2, int64_t kernel,
                                         int64_t displacement, int64_t stride, int64_t padding, int64_t dilation,
                                         int64_t dilation_patch) {
  const Params p = check(input1, input2, kernel, displacement, stride, padding, dilation, dilation_patch);
  check_grad(grad, input1, p);
  const CudaScope scope(input1);
  const Tensor g = as_contiguous(grad), a = as_contiguous(input1), b = as_contiguous(input2);
  const Tensor grad1 = empty_beside(a, {p.batch, p.channels, p.height, p.width}, a.scalar_type());
  const Tensor grad2 = empty_beside(a, {p.batch, p.channels, p.height, p.width}, a.scalar_type());
  if (grad1.numel() == 0) return {grad1, grad2};
  const int64_t out_h = p.out_size(p.height), out_w = p.out_size(p.width);
  const int64_t groups = (p.channels + kTogether - 1) / kTogether;
  const int64_t threads = p.batch * groups * p.height * p.width;
  dispatch_float(a.scalar_type(), "correlation_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    const T* gp = g.const_data_ptr<T>();
    backward_kernel<T><<<blocks_for(threads), kThreads, 0, scope.stream>>>(
        p, gp, b.const_data_ptr<T>(), 1, out_h, out_w, groups, threads, grad1.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    backward_kernel<T><<<blocks_for(threads), kThreads, 0, scope.stream>>>(
        p, gp, a.const_data_ptr<T>(), -1, out_h, out_w, groups, threads, grad2.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {grad1, grad2};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("correlation", CV_BOX(&forward_cuda));
  m.impl("correlation_backward", CV_BOX(&backward_cuda));
}

}  // namespace cv::correlation
