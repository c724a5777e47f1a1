// soft_nms on CUDA, wholly on the device. The steps depend on each other, so one block works on a group: its
// threads share the boxes out, and a step is one pass (lower my scores, remember my best) and one reduction.
// Groups, sorted to lie together, run side by side. The host waits once, for the number of boxes that stay.

#include <optional>
#include <tuple>

#include "../common/cuda_utils.cuh"
#include "../nms/greedy_cuda.cuh"
#include "soft_nms_args.h"

namespace cv::soft_nms {
namespace {

constexpr int kGroupThreads = 1024;
constexpr int kMaxBlocks = 1024;

template <typename A>
struct Best {
  A score;
  int64_t at;
};

// The larger score; of equal ones the earlier box.
template <typename A>
__device__ Best<A> better(const Best<A>& a, const Best<A>& b) {
  return b.score > a.score || (b.score == a.score && b.at < a.at) ? b : a;
}

template <typename A>
__device__ Best<A> warp_best(Best<A> best) {
  for (int offset = 16; offset > 0; offset >>= 1)
    best = better(best, Best<A>{__shfl_down_sync(0xffffffffu, best.score, offset),
                                __shfl_down_sync(0xffffffffu, best.at, offset)});
  return best;
}

// The best of the block, in every thread.
template <typename A>
__device__ Best<A> block_best(Best<A> best, Best<A>* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  best = warp_best(best);
  if (lane == 0) shared[warp] = best;
  __syncthreads();
  if (warp == 0) {
    best = warp_best(shared[lane]);
    if (lane == 0) shared[0] = best;
  }
  __syncthreads();
  best = shared[0];
  __syncthreads();  // shared is written again
  return best;
}

// order: positions by group, or null. starts: where groups begin in it, in any order, count of them.
template <typename T, typename A>
__global__ void prepare_kernel(const T* boxes, const T* scores, const int64_t* groups, const int64_t* order, int64_t n,
                               Decay<A> decay, nms::Box<A>* sorted_boxes, A* sorted_scores, A* final, int32_t* starts,
                               int32_t* count) {
  CV_GRID_LOOP(int64_t, i, n) {
    const int64_t from = order != nullptr ? order[i] : i;
    const T* b = boxes + 4 * from;
    sorted_boxes[i] = nms::make_box(static_cast<A>(b[0]), static_cast<A>(b[1]), static_cast<A>(b[2]),
                                    static_cast<A>(b[3]), decay.offset);
    sorted_scores[i] = filtered(static_cast<A>(scores[from]), decay.min_score);
    final[i] = -A(HUGE_VAL);
    if (i == 0 || (groups != nullptr && groups[from] != groups[order[i - 1]]))
      starts[atomicAdd(count, 1)] = static_cast<int32_t>(i);
  }
}

// The position after the group that begins at `start`: groups are sorted, descending.
__device__ int64_t group_end(const int64_t* groups, const int64_t* order, int64_t start, int64_t n) {
  if (groups == nullptr) return n;
  const int64_t group = groups[order[start]];
  int64_t low = start, high = n;  // at low it is the group, at high it is not
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (groups[order[middle]] == group ? low : high) = middle;
  }
  return high;
}

template <Method kMethod, typename A>
__global__ void __launch_bounds__(kGroupThreads)
    decay_kernel(const nms::Box<A>* boxes, A* scores, const int64_t* groups, const int64_t* order, int64_t n,
                 Decay<A> decay, const int32_t* starts, const int32_t* group_count, A* final, int32_t* kept) {
  __shared__ Best<A> shared[32];
  for (int32_t g = blockIdx.x; g < *group_count; g += gridDim.x) {
    const int64_t begin = starts[g], end = group_end(groups, order, begin, n);
    Best<A> mine{-A(HUGE_VAL), n};
    for (int64_t i = begin + threadIdx.x; i < end; i += kGroupThreads) mine = better(mine, Best<A>{scores[i], i});
    for (;;) {
      const Best<A> chosen = block_best(mine, shared);
      if (!(chosen.score > -A(HUGE_VAL))) break;  // the same in every thread
      const nms::Box<A> b = boxes[chosen.at];
      mine = {-A(HUGE_VAL), n};
      for (int64_t i = begin + threadIdx.x; i < end; i += kGroupThreads) {
        A score = scores[i];
        if (i == chosen.at) {  // this thread alone touches it
          final[order != nullptr ? order[i] : i] = score;
          atomicAdd(kept, 1);
          scores[i] = -A(HUGE_VAL);
          continue;
        }
        if (!(score > -A(HUGE_VAL))) continue;
        const nms::Box<A> other = boxes[i];
        score = filtered(score * factor<kMethod>(b, other.x1, other.y1, other.x2, other.y2, other.area, decay),
                         decay.min_score);
        scores[i] = score;
        mine = better(mine, Best<A>{score, i});
      }
    }
  }
}

template <typename T, typename A>
__global__ void output_kernel(const T* boxes, const A* final, const int64_t* order, int64_t k, T* dets, int64_t* keep) {
  CV_GRID_LOOP(int64_t, i, k) {
    const int64_t from = order[i];
    keep[i] = from;
#pragma unroll
    for (int c = 0; c < 4; ++c) dets[5 * i + c] = boxes[4 * from + c];
    dets[5 * i + 4] = static_cast<T>(final[from]);
  }
}

std::tuple<Tensor, Tensor> soft_nms_cuda(const Tensor& boxes, const Tensor& scores,
                                         const std::optional<Tensor>& groups, double iou_threshold, double sigma,
                                         double min_score, int64_t method_index, int64_t offset) {
  const Method method = check(boxes, scores, groups, iou_threshold, sigma, method_index, offset);
  const CudaScope scope(boxes);
  const Tensor b = as_contiguous(boxes), sc = as_contiguous(scores);
  std::optional<Tensor> g;
  if (groups) g = as_contiguous(*groups);
  const int64_t n = b.size(0);
  if (n == 0)
    return {empty_beside(b, {0, 5}, b.scalar_type()), empty_beside(b, {0}, ScalarType::Long)};
  std::optional<Tensor> by_group;
  if (g) by_group = nms::argsort_descending(*g);
  const int64_t* groups_p = g ? g->const_data_ptr<int64_t>() : nullptr;
  const int64_t* by_group_p = by_group ? by_group->const_data_ptr<int64_t>() : nullptr;
  const Tensor starts = empty_beside(b, {g ? n : 1}, ScalarType::Int);
  const Tensor counts = torch::stable::new_zeros(b, {2}, ScalarType::Int);  // groups, kept boxes
  int32_t *starts_p = starts.mutable_data_ptr<int32_t>(), *counts_p = counts.mutable_data_ptr<int32_t>();

  Tensor dets, keep;
  dispatch_float(b.scalar_type(), "soft_nms", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const Decay<A> decay{A(iou_threshold), A(sigma), A(min_score), A(offset)};
    const ScalarType dtype = opmath_dtype(b.scalar_type());
    const Tensor sorted_boxes = empty_beside(b, {n, 5}, dtype), sorted_scores = empty_beside(b, {n}, dtype);
    const Tensor final = empty_beside(b, {n}, dtype);
    auto* boxes_p = reinterpret_cast<nms::Box<A>*>(sorted_boxes.mutable_data_ptr<A>());
    A *scores_p = sorted_scores.mutable_data_ptr<A>(), *final_p = final.mutable_data_ptr<A>();
    prepare_kernel<<<blocks_for(n), kThreads, 0, scope.stream>>>(b.const_data_ptr<T>(), sc.const_data_ptr<T>(),
                                                                 groups_p, by_group_p, n, decay, boxes_p, scores_p,
                                                                 final_p, starts_p, counts_p);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    const unsigned blocks = g ? static_cast<unsigned>(n < kMaxBlocks ? n : kMaxBlocks) : 1;
    dispatch_method(method, [&](auto m) {
      decay_kernel<decltype(m)::value><<<blocks, kGroupThreads, 0, scope.stream>>>(
          boxes_p, scores_p, groups_p, by_group_p, n, decay, starts_p, counts_p, final_p, counts_p + 1);
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    const Tensor order = nms::argsort_descending(final);

    int32_t k = 0;
    STD_CUDA_CHECK(cudaMemcpyAsync(&k, counts_p + 1, sizeof k, cudaMemcpyDeviceToHost, scope.stream));
    STD_CUDA_CHECK(cudaStreamSynchronize(scope.stream));
    dets = empty_beside(b, {k, 5}, b.scalar_type());
    keep = empty_beside(b, {k}, ScalarType::Long);
    if (k == 0) return;
    output_kernel<<<blocks_for(k), kThreads, 0, scope.stream>>>(b.const_data_ptr<T>(), final_p,
                                                                order.const_data_ptr<int64_t>(), int64_t{k},
                                                                dets.mutable_data_ptr<T>(),
                                                                keep.mutable_data_ptr<int64_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {dets, keep};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("soft_nms", CV_BOX(&soft_nms_cuda)); }

}  // namespace cv::soft_nms
