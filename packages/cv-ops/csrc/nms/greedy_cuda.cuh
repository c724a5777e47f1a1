#pragma once
// Greedy suppression on CUDA: sorting, suppression and the list of the kept are all made on the device. The host
// launches without looking at results and waits once, at the end, for the number of kept boxes.
//
// Sorted boxes are worked through in chunks of 1024:
//   1. chunk_mask:     which box of the chunk would suppress which later one, one bit each (128 KiB);
//   2. chunk_reduce:   one block walks the mask in score order and appends the kept ones to the list;
//   3. suppress_later: all boxes after the chunk are tested against those that it kept.
// Memory is linear in the number of boxes. Work that is already decided (boxes removed, max_num reached)
// is skipped by the kernels themselves.
//
// What a box is, and when one suppresses another, is the Rule's: Rule::Box, and
// suppresses(const Box& kept, const Box& later) on the device.

#include <array>
#include <optional>
#include <tuple>

#include "../common/cuda_utils.cuh"

namespace cv::nms {

constexpr int kTile = 64;             // boxes per mask word
constexpr int kChunk = 1024;
constexpr int kWords = kChunk / kTile;
using Word = unsigned long long;

struct State {
  int32_t before, after;  // how many were kept before and after the current chunk
};

// Everything sorted by score, on the device.
template <typename Box>
struct Sorted {
  const Box* boxes;
  const int64_t* groups;  // or null
  uint8_t* removed;
  int64_t n;
};

// NaN ranks with -infinity, as in common/sort.h.
template <typename T, typename A>
__global__ void keys_kernel(const T* scores, A* keys, int64_t n) {
  CV_GRID_LOOP(int64_t, i, n) {
    const A s = static_cast<A>(scores[i]);
    keys[i] = s == s ? s : -A(HUGE_VAL);
  }
}

// grid (kWords, kWords), block kTile: the word of each row of row tile y against column tile x.
template <typename Rule>
__global__ void chunk_mask_kernel(Sorted<typename Rule::Box> s, Rule rule, int64_t begin, int32_t limit,
                                  const State* state, Word* mask) {
  using Box = typename Rule::Box;
  if (blockIdx.x < blockIdx.y || state->after >= limit) return;
  __shared__ Box columns[kTile];
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
  const Box box = s.boxes[row];
  const int64_t group = s.groups != nullptr ? s.groups[row] : 0;
  const int first = blockIdx.x == blockIdx.y ? threadIdx.x + 1 : 0;
  Word word = 0;
  for (int c = first; c < columns_here; ++c)
    if (column_groups[c] == group && rule.suppresses(box, columns[c])) word |= Word{1} << c;
  mask[(row - begin) * kWords + blockIdx.x] = word;
}

// One block. kept[state->after ...] receives the positions of the boxes that the chunk keeps.
template <typename Box>
__global__ void chunk_reduce_kernel(Sorted<Box> s, int64_t begin, int32_t limit, const Word* mask, State* state,
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

template <typename Rule>
__global__ void suppress_later_kernel(Sorted<typename Rule::Box> s, Rule rule, int64_t end, int32_t limit,
                                      const State* state, const int32_t* kept) {
  using Box = typename Rule::Box;
  const int32_t from = state->before, to = state->after;
  if (from >= to || to >= limit) return;
  __shared__ Box tile[kThreads];
  __shared__ int64_t tile_groups[kThreads];
  const int64_t j = end + static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  bool alive = j < s.n && !s.removed[j];
  const Box box = alive ? s.boxes[j] : Box{};
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
      if (tile_groups[c] == group && rule.suppresses(tile[c], box)) alive = false;
  }
  if (was_alive && !alive) s.removed[j] = 1;
}

template <int W, typename T>
__global__ void output_kernel(const T* boxes, const T* scores, const int64_t* order, const int32_t* kept, int64_t k,
                              T* dets, int64_t* keep) {
  CV_GRID_LOOP(int64_t, i, k) {
    const int64_t from = order[kept[i]];
    keep[i] = from;
#pragma unroll
    for (int c = 0; c < W; ++c) dets[(W + 1) * i + c] = boxes[W * from + c];
    dets[(W + 1) * i + W] = scores[from];
  }
}

// Indices that sort `keys` descending, stable.
inline Tensor argsort_descending(const Tensor& keys) {
  std::array<StableIValue, 4> stack{torch::stable::detail::from(Tensor(keys).release()),
                                    torch::stable::detail::from(std::optional<bool>(true)),
                                    torch::stable::detail::from(int64_t{0}), torch::stable::detail::from(true)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  (void)Tensor(torch::stable::detail::to<AtenTensorHandle>(stack[0]));  // the sorted keys
  return Tensor(torch::stable::detail::to<AtenTensorHandle>(stack[1]));
}

// Indices by score, best first; ties by index.
template <typename T>
Tensor order_by_score(const Tensor& scores, cudaStream_t stream) {
  using A = opmath_t<T>;
  const int64_t n = scores.numel();
  const Tensor keys = empty_beside(scores, {n}, opmath_dtype(scores.scalar_type()));
  keys_kernel<<<blocks_for(n), kThreads, 0, stream>>>(scores.const_data_ptr<T>(), keys.mutable_data_ptr<A>(), n);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return argsort_descending(keys);
}

// The result for sorted boxes: `order` says where each came from, `boxes` and `scores` are as the caller has them,
// W numbers to a box.
template <int W, typename T, typename Rule>
std::tuple<Tensor, Tensor> greedy(const Sorted<typename Rule::Box>& s, Rule rule, int64_t max_num, const Tensor& order,
                                  const Tensor& boxes, const Tensor& scores, cudaStream_t stream) {
  const int64_t n = s.n;
  const int32_t limit = static_cast<int32_t>(max_num > 0 && max_num < n ? max_num : n);
  const Tensor mask = empty_beside(boxes, {kChunk * kWords}, ScalarType::Long);
  const Tensor kept = empty_beside(boxes, {n}, ScalarType::Int);
  const Tensor state = torch::stable::new_zeros(boxes, {2}, ScalarType::Int);
  State* state_p = reinterpret_cast<State*>(state.mutable_data_ptr<int32_t>());
  int32_t* kept_p = kept.mutable_data_ptr<int32_t>();
  Word* mask_p = reinterpret_cast<Word*>(mask.mutable_data_ptr<int64_t>());

  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t end = begin + kChunk;
    chunk_mask_kernel<<<dim3(kWords, kWords), kTile, 0, stream>>>(s, rule, begin, limit, state_p, mask_p);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    chunk_reduce_kernel<<<1, kThreads, 0, stream>>>(s, begin, limit, mask_p, state_p, kept_p);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    if (end >= n) break;
    const unsigned blocks = static_cast<unsigned>((n - end + kThreads - 1) / kThreads);
    suppress_later_kernel<<<blocks, kThreads, 0, stream>>>(s, rule, end, limit, state_p, kept_p);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  State host{};
  STD_CUDA_CHECK(cudaMemcpyAsync(&host, state_p, sizeof host, cudaMemcpyDeviceToHost, stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  const int64_t k = host.after;
  const Tensor dets = empty_beside(boxes, {k, W + 1}, boxes.scalar_type());
  const Tensor keep = empty_beside(boxes, {k}, ScalarType::Long);
  if (k > 0) {
    output_kernel<W><<<blocks_for(k), kThreads, 0, stream>>>(
        boxes.const_data_ptr<T>(), scores.const_data_ptr<T>(), order.const_data_ptr<int64_t>(), kept_p, k,
        dets.mutable_data_ptr<T>(), keep.mutable_data_ptr<int64_t>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return {dets, keep};
}

}  // namespace cv::nms
