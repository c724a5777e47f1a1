// chamfer_distance on CUDA: a thread for each point, which goes through the other set. In the backward pass as well,
// to collect what distances push at it: no atomics, and the same result in every run.

#include <cuda/std/limits>
#include <tuple>

#include "../common/cuda_utils.cuh"
#include "chamfer_distance_args.h"

namespace cv::chamfer_distance {
namespace {

template <typename T>
__global__ void nearest_kernel(const T* from, int64_t n, const T* to, int64_t m, int64_t total, T* distances,
                               int32_t* indices) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, at, total) {
    const T* others = to + at / n * m * 2;
    const A x = static_cast<A>(from[2 * at]), y = static_cast<A>(from[2 * at + 1]);
    A best = cuda::std::numeric_limits<A>::quiet_NaN();
    int32_t which = 0;
    for (int64_t j = 0; j < m; ++j) {
      const A d = squared_distance(x, y, static_cast<A>(others[2 * j]), static_cast<A>(others[2 * j + 1]));
      if (is_nearer(d, best)) best = d, which = static_cast<int32_t>(j);
    }
    distances[at] = static_cast<T>(best);
    indices[at] = which;
  }
}

// The gradient of the points `from`: of their own distances, and of those that have them as the nearest.
template <typename T>
__global__ void gradient_kernel(const T* grad_from, const T* grad_to, const T* from, int64_t n, const T* to, int64_t m,
                                const int32_t* index_from, const int32_t* index_to, int64_t total, T* out) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, at, total) {
    const int64_t batch = at / n, i = at - batch * n;
    const T* others = to + batch * m * 2;
    const A x = static_cast<A>(from[2 * at]), y = static_cast<A>(from[2 * at + 1]);
    A gx = A(0), gy = A(0);
    const auto pull = [&](int64_t j, A g) {
      gx += A(2) * g * (x - static_cast<A>(others[2 * j])), gy += A(2) * g * (y - static_cast<A>(others[2 * j + 1]));
    };
    const int64_t own = index_from[at];
    if (own >= 0 && own < m) pull(own, static_cast<A>(grad_from[at]));
    for (int64_t j = 0; j < m; ++j)
      if (index_to[batch * m + j] == i) pull(j, static_cast<A>(grad_to[batch * m + j]));
    out[2 * at] = static_cast<T>(gx), out[2 * at + 1] = static_cast<T>(gy);
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> chamfer_distance_cuda(const Tensor& xyz1, const Tensor& xyz2) {
  const Sizes s = check(xyz1, xyz2);
  const CudaScope scope(xyz1);
  const Tensor a = as_contiguous(xyz1), b = as_contiguous(xyz2);
  const Tensor distance1 = empty_beside(a, {s.batch, s.first}, a.scalar_type());
  const Tensor distance2 = empty_beside(a, {s.batch, s.second}, a.scalar_type());
  const Tensor index1 = empty_beside(a, {s.batch, s.first}, ScalarType::Int);
  const Tensor index2 = empty_beside(a, {s.batch, s.second}, ScalarType::Int);
  if (distance1.numel() == 0) return {distance1, distance2, index1, index2};
  dispatch_float(a.scalar_type(), "chamfer_distance", [&](auto t) {
    using T = typename decltype(t)::type;
    const T *ap = a.const_data_ptr<T>(), *bp = b.const_data_ptr<T>();
    const int64_t n1 = s.batch * s.first, n2 = s.batch * s.second;
    nearest_kernel<T><<<blocks_for(n1), kThreads, 0, scope.stream>>>(
        ap, s.first, bp, s.second, n1, distance1.mutable_data_ptr<T>(), index1.mutable_data_ptr<int32_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    nearest_kernel<T><<<blocks_for(n2), kThreads, 0, scope.stream>>>(
        bp, s.second, ap, s.first, n2, distance2.mutable_data_ptr<T>(), index2.mutable_data_ptr<int32_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {distance1, distance2, index1, index2};
}

std::tuple<Tensor, Tensor> chamfer_distance_backward_cuda(const Tensor& grad1, const Tensor& grad2, const Tensor& xyz1,
                                                          const Tensor& xyz2, const Tensor& index1,
                                                          const Tensor& index2) {
  const Sizes s = check_backward(grad1, grad2, xyz1, xyz2, index1, index2);
  const CudaScope scope(xyz1);
  const Tensor a = as_contiguous(xyz1), b = as_contiguous(xyz2), g1 = as_contiguous(grad1), g2 = as_contiguous(grad2);
  const Tensor i1 = as_contiguous(index1), i2 = as_contiguous(index2);
  const Tensor out1 = empty_beside(a, {s.batch, s.first, 2}, a.scalar_type());
  const Tensor out2 = empty_beside(a, {s.batch, s.second, 2}, a.scalar_type());
  if (out1.numel() == 0) return {out1, out2};
  dispatch_float(a.scalar_type(), "chamfer_distance_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    const T *ap = a.const_data_ptr<T>(), *bp = b.const_data_ptr<T>();
    const T *g1p = g1.const_data_ptr<T>(), *g2p = g2.const_data_ptr<T>();
    const int32_t *i1p = i1.const_data_ptr<int32_t>(), *i2p = i2.const_data_ptr<int32_t>();
    const int64_t n1 = s.batch * s.first, n2 = s.batch * s.second;
    gradient_kernel<T><<<blocks_for(n1), kThreads, 0, scope.stream>>>(g1p, g2p, ap, s.first, bp, s.second, i1p, i2p,
                                                                      n1, out1.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    gradient_kernel<T><<<blocks_for(n2), kThreads, 0, scope.stream>>>(g2p, g1p, bp, s.second, ap, s.first, i2p, i1p,
                                                                      n2, out2.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {out1, out2};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("chamfer_distance", CV_BOX(&chamfer_distance_cuda));
  m.impl("chamfer_distance_backward", CV_BOX(&chamfer_distance_backward_cuda));
}

}  // namespace cv::chamfer_distance
