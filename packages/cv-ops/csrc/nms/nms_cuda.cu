// nms on CUDA: boxes are gathered in the order of their scores; greedy_cuda.cuh does the rest.

#include <optional>
#include <tuple>

#include "../common/cuda_utils.cuh"
#include "greedy_cuda.cuh"
#include "nms.h"
#include "nms_args.h"

namespace cv::nms {
namespace {

template <typename A>
struct IouAbove {
  using Box = nms::Box<A>;
  A offset, threshold;

  __device__ bool suppresses(const Box& a, const Box& b) const {
    return iou_exceeds(a, b.x1, b.y1, b.x2, b.y2, b.area, offset, threshold);
  }
};

template <typename T, typename A>
__global__ void gather_kernel(const T* boxes, const T* scores, const int64_t* groups, const int64_t* order, int64_t n,
                              A offset, A score_threshold, Box<A>* sorted_boxes, int64_t* sorted_groups,
                              uint8_t* removed) {
  CV_GRID_LOOP(int64_t, i, n) {
    const int64_t from = order[i];
    const T* b = boxes + 4 * from;
    sorted_boxes[i] = make_box(static_cast<A>(b[0]), static_cast<A>(b[1]), static_cast<A>(b[2]), static_cast<A>(b[3]),
                               offset);
    if (groups != nullptr) sorted_groups[i] = groups[from];
    removed[i] = score_threshold > A(0) && !(static_cast<A>(scores[from]) > score_threshold);
  }
}

std::tuple<Tensor, Tensor> nms_cuda(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups,
                                    double iou_threshold, int64_t offset, double score_threshold, int64_t max_num) {
  check(boxes, scores, groups);
  check_options(iou_threshold, offset);
  const CudaScope scope(boxes);
  const Tensor b = as_contiguous(boxes), sc = as_contiguous(scores);
  std::optional<Tensor> g;
  if (groups) g = as_contiguous(*groups);
  const int64_t n = b.size(0);
  if (n == 0)
    return {empty_beside(b, {0, 5}, b.scalar_type()), empty_beside(b, {0}, ScalarType::Long)};

  std::tuple<Tensor, Tensor> result;
  dispatch_float(b.scalar_type(), "nms", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const Tensor order = order_by_score<T>(sc, scope.stream);
    const Tensor removed = empty_beside(b, {n}, ScalarType::Byte);
    const Tensor sorted_boxes = empty_beside(b, {n, 5}, opmath_dtype(b.scalar_type()));
    const Tensor sorted_groups = empty_beside(b, {g ? n : 0}, ScalarType::Long);
    Box<A>* sorted_boxes_p = reinterpret_cast<Box<A>*>(sorted_boxes.mutable_data_ptr<A>());
    int64_t* sorted_groups_p = g ? sorted_groups.mutable_data_ptr<int64_t>() : nullptr;
    const Sorted<Box<A>> s{sorted_boxes_p, sorted_groups_p, removed.mutable_data_ptr<uint8_t>(), n};
    gather_kernel<<<blocks_for(n), kThreads, 0, scope.stream>>>(
        b.const_data_ptr<T>(), sc.const_data_ptr<T>(), g ? g->const_data_ptr<int64_t>() : nullptr,
        order.const_data_ptr<int64_t>(), n, A(offset), A(score_threshold), sorted_boxes_p, sorted_groups_p, s.removed);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    result = greedy<4, T>(s, IouAbove<A>{A(offset), A(iou_threshold)}, max_num, order, b, sc, scope.stream);
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("nms", CV_BOX(&nms_cuda)); }

}  // namespace cv::nms
