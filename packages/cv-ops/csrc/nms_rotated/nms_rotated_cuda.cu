// nms_rotated on CUDA: boxes are prepared in the order of their scores; nms/greedy_cuda.cuh does the rest.

#include <optional>
#include <tuple>

#include "../common/cuda_utils.cuh"
#include "../nms/greedy_cuda.cuh"
#include "nms_rotated.h"

namespace cv::nms_rotated {
namespace {

template <typename A>
struct IouAbove {
  using Box = RotatedBox<A>;
  A threshold;

  __device__ bool suppresses(const Box& kept, const Box& later) const { return iou_exceeds(kept, later, threshold); }
};

template <typename T, typename A>
__global__ void gather_kernel(const T* boxes, const T* scores, const int64_t* groups, const int64_t* order, int64_t n,
                              A score_threshold, RotatedBox<A>* sorted_boxes, int64_t* sorted_groups,
                              uint8_t* removed) {
  CV_GRID_LOOP(int64_t, i, n) {
    const int64_t from = order[i];
    const T* b = boxes + 5 * from;
    sorted_boxes[i] = make_rotated_box<A>(static_cast<A>(b[0]), static_cast<A>(b[1]), static_cast<A>(b[2]),
                                          static_cast<A>(b[3]), static_cast<A>(b[4]));
    if (groups != nullptr) sorted_groups[i] = groups[from];
    removed[i] = score_threshold > A(0) && !(static_cast<A>(scores[from]) > score_threshold);
  }
}

std::tuple<Tensor, Tensor> nms_rotated_cuda(const Tensor& dets, const Tensor& scores,
                                            const std::optional<Tensor>& groups, double iou_threshold,
                                            double score_threshold, int64_t max_num) {
  check(dets, scores, groups, iou_threshold);
  const CudaScope scope(dets);
  const Tensor b = as_contiguous(dets), sc = as_contiguous(scores);
  std::optional<Tensor> g;
  if (groups) g = as_contiguous(*groups);
  const int64_t n = b.size(0);
  if (n == 0)
    return {empty_beside(b, {0, 6}, b.scalar_type()), empty_beside(b, {0}, ScalarType::Long)};

  std::tuple<Tensor, Tensor> result;
  dispatch_float(b.scalar_type(), "nms_rotated", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    static_assert(sizeof(RotatedBox<A>) == 9 * sizeof(A));
    const Tensor order = nms::order_by_score<T>(sc, scope.stream);
    const Tensor removed = empty_beside(b, {n}, ScalarType::Byte);
    const Tensor sorted_boxes = empty_beside(b, {n, 9}, opmath_dtype(b.scalar_type()));
    const Tensor sorted_groups = empty_beside(b, {g ? n : 0}, ScalarType::Long);
    auto* sorted_boxes_p = reinterpret_cast<RotatedBox<A>*>(sorted_boxes.mutable_data_ptr<A>());
    int64_t* sorted_groups_p = g ? sorted_groups.mutable_data_ptr<int64_t>() : nullptr;
    const nms::Sorted<RotatedBox<A>> s{sorted_boxes_p, sorted_groups_p, removed.mutable_data_ptr<uint8_t>(), n};
    gather_kernel<<<blocks_for(n), kThreads, 0, scope.stream>>>(
        b.const_data_ptr<T>(), sc.const_data_ptr<T>(), g ? g->const_data_ptr<int64_t>() : nullptr,
        order.const_data_ptr<int64_t>(), n, A(score_threshold), sorted_boxes_p, sorted_groups_p, s.removed);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    result = nms::greedy<5, T>(s, IouAbove<A>{A(iou_threshold)}, max_num, order, b, sc, scope.stream);
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("nms_rotated", CV_BOX(&nms_rotated_cuda)); }

}  // namespace cv::nms_rotated
