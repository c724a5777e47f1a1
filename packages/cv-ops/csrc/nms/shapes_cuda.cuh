#pragma once
// NMS of shapes on CUDA: shapes are prepared in the order of their scores; greedy_cuda.cuh does the rest.

#include <optional>
#include <tuple>

#include "../common/cuda_utils.cuh"
#include "greedy_cuda.cuh"
#include "shapes.h"

namespace cv::nms {

template <typename Rule, typename A>
struct ShapeIouAbove {
  using Box = typename Rule::template Shape<A>;
  A threshold;

  __device__ bool suppresses(const Box& kept, const Box& later) const {
    return Rule::iou_exceeds(kept, later, threshold);
  }
};

template <typename Rule, typename T, typename A, typename Shape>
__global__ void gather_shapes_kernel(const T* boxes, const T* scores, const int64_t* groups, const int64_t* order,
                                     int64_t n, A score_threshold, Shape* sorted, int64_t* sorted_groups,
                                     uint8_t* removed) {
  CV_GRID_LOOP(int64_t, i, n) {
    const int64_t from = order[i];
    sorted[i] = Rule::template make<A>(boxes + Rule::kNumbers * from);
    if (groups != nullptr) sorted_groups[i] = groups[from];
    removed[i] = score_threshold > A(0) && !(static_cast<A>(scores[from]) > score_threshold);
  }
}

// The whole operator.
template <typename Rule>
std::tuple<Tensor, Tensor> suppress_shapes_cuda(const Tensor& dets, const Tensor& scores,
                                                const std::optional<Tensor>& groups, double iou_threshold,
                                                double score_threshold, int64_t max_num) {
  check_shapes(Rule::kName, Rule::kNumbers, dets, scores, groups, iou_threshold);
  const CudaScope scope(dets);
  const Tensor b = as_contiguous(dets), sc = as_contiguous(scores);
  std::optional<Tensor> g;
  if (groups) g = as_contiguous(*groups);
  const int64_t n = b.size(0);
  if (n == 0)
    return {empty_beside(b, {0, Rule::kNumbers + 1}, b.scalar_type()), empty_beside(b, {0}, ScalarType::Long)};

  std::tuple<Tensor, Tensor> result;
  dispatch_float(b.scalar_type(), Rule::kName, [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    using Shape = typename Rule::template Shape<A>;
    static_assert(sizeof(Shape) % sizeof(A) == 0);
    const Tensor order = order_by_score<T>(sc, scope.stream);
    const Tensor removed = empty_beside(b, {n}, ScalarType::Byte);
    const Tensor sorted = empty_beside(b, {n, sizeof(Shape) / sizeof(A)}, opmath_dtype(b.scalar_type()));
    const Tensor sorted_groups = empty_beside(b, {g ? n : 0}, ScalarType::Long);
    auto* shapes = reinterpret_cast<Shape*>(sorted.mutable_data_ptr<A>());
    int64_t* shape_groups = g ? sorted_groups.mutable_data_ptr<int64_t>() : nullptr;
    const Sorted<Shape> s{shapes, shape_groups, removed.mutable_data_ptr<uint8_t>(), n};
    gather_shapes_kernel<Rule><<<blocks_for(n), kThreads, 0, scope.stream>>>(
        b.const_data_ptr<T>(), sc.const_data_ptr<T>(), g ? g->const_data_ptr<int64_t>() : nullptr,
        order.const_data_ptr<int64_t>(), n, A(score_threshold), shapes, shape_groups, s.removed);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    result = greedy<Rule::kNumbers, T>(s, ShapeIouAbove<Rule, A>{A(iou_threshold)}, max_num, order, b, sc,
                                       scope.stream);
  });
  return result;
}

}  // namespace cv::nms
