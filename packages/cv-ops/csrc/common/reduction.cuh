#pragma once
// Sums in a fixed order, so that they are the same in every run: each block of a grid of at most kMaxSumBlocks
// writes block_sum() of its terms to partial[blockIdx.x], and finish_sum_kernel, in one block, adds those.

#include "cuda_utils.cuh"

namespace cv {

constexpr int kMaxSumBlocks = 1024;

// The sum over the block, in thread 0. All threads of the block call it, once.
template <typename A>
__device__ A block_sum(A v) {
  __shared__ A warps[32];
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  const int warp_count = blockDim.x / 32;
  v = static_cast<int>(threadIdx.x) < warp_count ? warps[threadIdx.x] : A(0);
  return threadIdx.x < 32 ? warp_sum(v) : A(0);
}

// *out = scale * (the sum of partial); <<<1, kThreads>>>.
template <typename T>
__global__ void finish_sum_kernel(const opmath_t<T>* partial, int count, double scale, T* out) {
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) sum += static_cast<double>(partial[i]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = static_cast<T>(static_cast<opmath_t<T>>(sum * scale));
}

}  // namespace cv
