// nms on CUDA: sorting, suppression and the list of the kept are all made on the device. The host launches
// without looking at results and waits once, at the end, for the number of kept boxes.
//
// Sorted boxes are worked through in chunks of 1024:
//   1. chunk_mask:     which box of the chunk would suppress which later one, one bit each (128 KiB);
//   2. chunk_reduce:   one block walks the mask in score order and appends the kept ones to the list;
//   3. suppress_later: all boxes after the chunk are tested against those that it kept.
// Memory is linear in the number of boxes. Work that is already decided (boxes removed, max_num reached)
// is skipped by the kernels themselves.

#include <array>
#include <optional>
#include <tuple>

#include "../common/cuda_utils.cuh"
#include "nms.h"
#include "nms_args.h"

namespace cv::nms {
namespace {

constexpr int kTile = 64;             // boxes per mask word
constexpr int kChunk = 1024;
constexpr int kWords = kChunk / kTile;
using Word = unsigned long long;

struct State {
  int32_t before, after;  // how many were kept before and after the current chunk
};

// Everything sorted by score, on the device.
template <typename A>
struct Sorted {
  const Box<A>* boxes;
  const int64_t* groups;  // or null
  uint8_t* removed;
  int64_t n;
};

template <typename A>
__device__ bool suppresses(const Box<A>& a, const Box<A>& b, A offset, A threshold) {
  return iou_exceeds(a, b.x1, b.y1, b.x2, b.y2, b.area, offset, threshold);
}

// NaN ranks with -infinity, as in common/sort.h.
template <typename T, typename A>
__global__ void keys_kernel(const T* scores, A* keys, int64_t n) {
  CV_GRID_LOOP(int64_t, i, n) {
    const A s = static_cast<A>(scores[i]);
    keys[i] = s == s ? s : -A(HUGE_VAL);
  }
}

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

// grid (kWords, kWords), block kTile: the word of each row of row tile y against column tile x.
template <typename A>
__global__ void chunk_mask_kernel(Sorted<A> s, int64_t begin, A offset, A threshold, int32_t limit, const State* state,
                                  Word* mask) {
  if (blockIdx.x < blockIdx.y || state->after >= limit) return;
  __shared__ Box<A> columns[kTile];
  __shared__ int64_t column_groups[kTile];
  const int64_t column0 = begin + static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t row = begin + static_cast<int64_t>(blockIdx.y) * kTile + threadIdx.x;
  const int columns_here = static_cast<int>(min(static_cast<int64_t>(kTile), s.n - column0));
  if (columns_here <= 0) return;  // uniform over the block
  if (static_cast<int>(threadIdx.x) < columns_here) {
    columns[threadIdx.x] = s.boxes[column0 + threadIdx.x];
    column_groups[threadIdx.x] = s.groups != nullptr ? s.groups[column0 + threadIdx.x] : 0;
  }
  __syncthreads();
  if (row >= s.n || s.removed[row]) return;  // its words are never read
  const Box<A> box = s.boxes[row];
  const int64_t group = s.groups != nullptr ? s.groups[row] : 0;
  const int first = blockIdx.x == blockIdx.y ? threadIdx.x + 1 : 0;
  Word word = 0;
  for (int c = first; c < columns_here; ++c)
    if (column_groups[c] == group && suppresses(box, columns[c], offset, threshold)) word |= Word{1} << c;
  mask[(row - begin) * kWords + blockIdx.x] = word;
}

// One block. kept[state->after ...] receives the positions of the boxes that the chunk keeps.
template <typename A>
__global__ void chunk_reduce_kernel(Sorted<A> s, int64_t begin, int32_t limit, const Word* mask, State* state,
                                    int32_t* kept) {
  __shared__ Word dead[kWords];
  __shared__ Word diagonal[kTile];
  __shared__ Word tile_kept;
  const int32_t before = state->after;
  const int tid = threadIdx.x;
  int32_t count = before;  // the same in every thread
  if (before >= limit) {
    if (tid == 0) state->before = before;  // nothing new for suppress_later
    return;
  }
  if (tid < kWords) dead[tid] = 0;
  __syncthreads();
  for (int i = tid; i < kChunk; i += blockDim.x)
    if (begin + i >= s.n || s.removed[begin + i]) atomicOr(&dead[i / kTile], Word{1} << (i % kTile));
  __syncthreads();

  for (int w = 0; w < kWords && begin + w * kTile < s.n && count < limit; ++w) {
    // Rows that are dead have no mask; they are never looked up.
    if (tid < kTile && !(dead[w] >> tid & 1)) diagonal[tid] = mask[(w * kTile + tid) * kWords + w];
    __syncthreads();
    if (tid == 0) {
      Word alive = ~dead[w], chosen = 0;
      while (alive != 0) {
        const int i = __ffsll(static_cast<long long>(alive)) - 1;
        chosen |= Word{1} << i;
        alive &= ~(Word{1} << i) & ~diagonal[i];
      }
      tile_kept = chosen;
    }
    __syncthreads();
    const Word chosen = tile_kept;
    const int later_words = kWords - 1 - w;
    for (int item = tid; item < kTile * later_words; item += blockDim.x) {
      const int i = item / later_words, word = w + 1 + item % later_words;
      if ((chosen >> i & 1) && begin + static_cast<int64_t>(word) * kTile < s.n)
        atomicOr(&dead[word], mask[(w * kTile + i) * kWords + word]);
    }
    if (tid < kTile && (chosen >> tid & 1)) {
      const int32_t at = count + __popcll(chosen & ((Word{1} << tid) - 1));
      if (at < limit) kept[at] = static_cast<int32_t>(begin + w * kTile + tid);
    }
    count = min(count + __popcll(chosen), limit);
    __syncthreads();  // tile_kept, diagonal and dead are used again
  }
  if (tid == 0) *state = {before, count};
}

template <typename A>
__global__ void suppress_later_kernel(Sorted<A> s, int64_t end, A offset, A threshold, int32_t limit,
                                      const State* state, const int32_t* kept) {
  const int32_t from = state->before, to = state->after;
  if (from >= to || to >= limit) return;
  __shared__ Box<A> tile[kThreads];
  __shared__ int64_t tile_groups[kThreads];
  const int64_t j = end + static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  bool alive = j < s.n && !s.removed[j];
  const Box<A> box = alive ? s.boxes[j] : Box<A>{};
  const int64_t group = alive && s.groups != nullptr ? s.groups[j] : 0;
  const bool was_alive = alive;
  for (int32_t base = from; base < to; base += kThreads) {
    if (__syncthreads_or(alive) == 0) break;  // also: everybody is done with the tile before
    const int32_t k = base + static_cast<int32_t>(threadIdx.x);
    if (k < to) {
      tile[threadIdx.x] = s.boxes[kept[k]];
      tile_groups[threadIdx.x] = s.groups != nullptr ? s.groups[kept[k]] : 0;
    }
    __syncthreads();
    const int here = min(kThreads, to - base);
    for (int c = 0; alive && c < here; ++c)
      if (tile_groups[c] == group && suppresses(tile[c], box, offset, threshold)) alive = false;
  }
  if (was_alive && !alive) s.removed[j] = 1;
}

template <typename T>
__global__ void output_kernel(const T* boxes, const T* scores, const int64_t* order, const int32_t* kept, int64_t k,
                              T* dets, int64_t* keep) {
  CV_GRID_LOOP(int64_t, i, k) {
    const int64_t from = order[kept[i]];
    keep[i] = from;
#pragma unroll
    for (int c = 0; c < 4; ++c) dets[5 * i + c] = boxes[4 * from + c];
    dets[5 * i + 4] = scores[from];
  }
}

// Indices that sort `keys` descending, stable.
Tensor argsort_descending(const Tensor& keys) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(keys),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t{0}), torch::stable::detail::from(true)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  (void)torch::stable::detail::to<Tensor>(stack[0]);  // the sorted keys
  return torch::stable::detail::to<Tensor>(stack[1]);
}

std::tuple<Tensor, Tensor> nms_cuda(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups,
                                    double iou_threshold, int64_t offset, double score_threshold, int64_t max_num) {
  check(boxes, scores, groups);
  const CudaScope scope(boxes);
  const Tensor b = as_contiguous(boxes), sc = as_contiguous(scores);
  const std::optional<Tensor> g = groups ? std::optional<Tensor>(as_contiguous(*groups)) : std::nullopt;
  const int64_t n = b.size(0);
  if (n == 0)
    return {empty_beside(b, {0, 5}, b.scalar_type()), empty_beside(b, {0}, ScalarType::Long)};
  const int32_t limit = static_cast<int32_t>(max_num > 0 && max_num < n ? max_num : n);

  const Tensor removed = empty_beside(b, {n}, ScalarType::Byte);
  const Tensor mask = empty_beside(b, {kChunk * kWords}, ScalarType::Long);
  const Tensor kept = empty_beside(b, {n}, ScalarType::Int);
  const Tensor state = torch::stable::new_zeros(b, {2}, ScalarType::Int);
  State* state_p = reinterpret_cast<State*>(state.mutable_data_ptr<int32_t>());
  int32_t* kept_p = kept.mutable_data_ptr<int32_t>();
  Word* mask_p = reinterpret_cast<Word*>(mask.mutable_data_ptr<int64_t>());

  Tensor dets, keep;
  dispatch_float(b.scalar_type(), "nms", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const T* boxes_p = b.const_data_ptr<T>();
    const T* scores_p = sc.const_data_ptr<T>();

    const Tensor keys = empty_beside(b, {n}, opmath_dtype(b.scalar_type()));
    keys_kernel<<<blocks_for(n), kThreads, 0, scope.stream>>>(scores_p, keys.mutable_data_ptr<A>(), n);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    const Tensor order = argsort_descending(keys);
    const int64_t* order_p = order.const_data_ptr<int64_t>();

    const Tensor sorted_boxes = empty_beside(b, {n, 5}, opmath_dtype(b.scalar_type()));
    const Tensor sorted_groups = empty_beside(b, {g ? n : 0}, ScalarType::Long);
    Box<A>* sorted_boxes_p = reinterpret_cast<Box<A>*>(sorted_boxes.mutable_data_ptr<A>());
    int64_t* sorted_groups_p = g ? sorted_groups.mutable_data_ptr<int64_t>() : nullptr;
    const Sorted<A> s{sorted_boxes_p, sorted_groups_p, removed.mutable_data_ptr<uint8_t>(), n};
    gather_kernel<<<blocks_for(n), kThreads, 0, scope.stream>>>(
        boxes_p, scores_p, g ? g->const_data_ptr<int64_t>() : nullptr, order_p, n, A(offset), A(score_threshold),
        sorted_boxes_p, sorted_groups_p, s.removed);
    STD_CUDA_KERNEL_LAUNCH_CHECK();

    for (int64_t begin = 0; begin < n; begin += kChunk) {
      const int64_t end = begin + kChunk;
      chunk_mask_kernel<<<dim3(kWords, kWords), kTile, 0, scope.stream>>>(s, begin, A(offset), A(iou_threshold), limit,
                                                                          state_p, mask_p);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      chunk_reduce_kernel<<<1, kThreads, 0, scope.stream>>>(s, begin, limit, mask_p, state_p, kept_p);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      if (end >= n) break;
      const unsigned blocks = static_cast<unsigned>((n - end + kThreads - 1) / kThreads);
      suppress_later_kernel<<<blocks, kThreads, 0, scope.stream>>>(s, end, A(offset), A(iou_threshold), limit, state_p,
                                                                   kept_p);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }

    State host{};
    STD_CUDA_CHECK(cudaMemcpyAsync(&host, state_p, sizeof host, cudaMemcpyDeviceToHost, scope.stream));
    STD_CUDA_CHECK(cudaStreamSynchronize(scope.stream));
    const int64_t k = host.after;
    dets = empty_beside(b, {k, 5}, b.scalar_type());
    keep = empty_beside(b, {k}, ScalarType::Long);
    if (k == 0) return;
    output_kernel<<<blocks_for(k), kThreads, 0, scope.stream>>>(boxes_p, scores_p, order_p, kept_p, k,
                                                                dets.mutable_data_ptr<T>(),
                                                                keep.mutable_data_ptr<int64_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {dets, keep};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("nms", TORCH_BOX(&nms_cuda)); }

}  // namespace cv::nms
