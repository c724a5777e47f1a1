// convex_iou and convex_giou on CUDA. Hulls are made once for each set of points; then a thread takes a pair, columns
// fastest, and cuts only where the axis-aligned hulls meet.

#include <tuple>

#include "../common/cuda_utils.cuh"
#include "convex_iou.h"
#include "convex_iou_args.h"

namespace cv::convex_iou {
namespace {

constexpr int64_t kHullValues = 24;

template <typename T, typename A>
__global__ void hull_kernel(const T* pointsets, int64_t n, Hull<A>* out) {
  CV_GRID_LOOP(int64_t, i, n) out[i] = make_hull<A>(pointsets + 18 * i);
}

template <typename T, typename A>
__global__ void pair_kernel(const Hull<A>* hulls, const T* polygons, int64_t n, int64_t total, T* out) {
  CV_GRID_LOOP(int64_t, i, total) {
    const int64_t row = i / n, column = i - row * n;
    Point<A> v[4];
    load_points(polygons + 8 * column, 4, v);
    const A area = hulls[row].area;
    A value = (area - area) + polygon::nothing_or_nan(v, 4);
    if (boxes_meet(hulls[row].box, box_of(v, 4))) value = iou(hulls[row], polygon::make_pieces(v));
    out[i] = static_cast<T>(value);
  }
}

template <typename T, typename A>
__global__ void giou_kernel(const T* pointsets, const T* polygons, int64_t n, T* out, T* grad) {
  CV_GRID_LOOP(int64_t, i, n) giou_row<A>(pointsets + 18 * i, polygons + 8 * i, out + i, grad + 18 * i);
}

Tensor convex_iou_cuda(const Tensor& pointsets, const Tensor& polygons) {
  check(pointsets, polygons);
  const CudaScope scope(pointsets);
  const Tensor a = as_contiguous(pointsets), b = as_contiguous(polygons);
  const int64_t m = a.size(0), n = b.size(0);
  const Tensor out = empty_beside(a, {m, n}, a.scalar_type());
  if (out.numel() == 0) return out;
  dispatch_float(a.scalar_type(), "convex_iou", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    static_assert(sizeof(Hull<A>) == kHullValues * sizeof(A));
    const Tensor made = empty_beside(a, {m, kHullValues}, opmath_dtype(a.scalar_type()));
    auto* hulls = reinterpret_cast<Hull<A>*>(made.mutable_data_ptr<A>());
    hull_kernel<T, A><<<blocks_for(m), kThreads, 0, scope.stream>>>(a.const_data_ptr<T>(), m, hulls);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    pair_kernel<T, A><<<blocks_for(m * n), kThreads, 0, scope.stream>>>(hulls, b.const_data_ptr<T>(), n, m * n,
                                                                        out.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

std::tuple<Tensor, Tensor> convex_giou_cuda(const Tensor& pointsets, const Tensor& polygons) {
  check_aligned(pointsets, polygons);
  const CudaScope scope(pointsets);
  const Tensor a = as_contiguous(pointsets), b = as_contiguous(polygons);
  const int64_t m = a.size(0);
  const Tensor out = empty_beside(a, {m}, a.scalar_type()), grad = empty_beside(a, {m, 18}, a.scalar_type());
  if (m == 0) return {out, grad};
  dispatch_float(a.scalar_type(), "convex_giou", [&](auto t) {
    using T = typename decltype(t)::type;
    giou_kernel<T, opmath_t<T>><<<blocks_for(m), kThreads, 0, scope.stream>>>(
        a.const_data_ptr<T>(), b.const_data_ptr<T>(), m, out.mutable_data_ptr<T>(), grad.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {out, grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("convex_iou", CV_BOX(&convex_iou_cuda));
  m.impl("convex_giou", CV_BOX(&convex_giou_cuda));
}

}  // namespace cv::convex_iou
