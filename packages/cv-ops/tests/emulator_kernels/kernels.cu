// Small kernels for test_emulator.py: some right, most deliberately wrong. run_kernel() launches one by its name and
// returns what the emulator says about it, or an empty string.

#include <cuda_runtime.h>

#include <exception>
#include <stdexcept>
#include <string>

namespace simt {
void* current_stream();
}

namespace {

constexpr unsigned kAll = 0xffffffffu;

// --- right --------------------------------------------------------------------------------------------------

// out[block] = sum of in over the block of 256 threads
__global__ void block_sum(const float* in, float* out) {
  __shared__ float warps[8];
  float v = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(kAll, v, offset);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x == 0) {
    float sum = 0;
    for (int w = 0; w < 8; ++w) sum += warps[w];
    out[blockIdx.x] = sum;
  }
}

// Every kind of warp function, in groups of eight lanes.
__global__ void groups_of_eight(float* out) {
  const int lane = threadIdx.x % 32, in_group = lane % 8;
  const unsigned mask = 0xffu << (lane - in_group);
  const float v = static_cast<float>(threadIdx.x);
  const float first = __shfl_sync(mask, v, 0, 8), before = __shfl_up_sync(mask, v, 1, 8);
  const float after = __shfl_down_sync(mask, v, 1, 8);
  const unsigned odd = __ballot_sync(mask, lane % 2);
  const int any = __any_sync(mask, in_group == 3), all = __all_sync(mask, in_group < 7);
  __syncwarp(mask);
  float* o = out + 6 * threadIdx.x;
  o[0] = first, o[1] = before, o[2] = after, o[3] = static_cast<float>(__popc(odd));
  o[4] = static_cast<float>(any), o[5] = static_cast<float>(all);
}

// The barrier waits for the threads that have not returned.
__global__ void some_threads_return(float* out) {
  __shared__ float cell;
  if (threadIdx.x >= 40) return;
  if (threadIdx.x == 0) cell = 3;
  __syncthreads();
  out[threadIdx.x] = cell;
}

__global__ void barrier_votes(float* out) {
  const int or_ = __syncthreads_or(threadIdx.x == 5), and_ = __syncthreads_and(threadIdx.x != 5);
  const int count = __syncthreads_count(threadIdx.x < 7);
  out[threadIdx.x] = static_cast<float>(100 * or_ + 10 * count + and_);
}

__global__ void places(float* out) {
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + thread] = static_cast<float>(block * 1000 + thread);
}

// Rounds differently in each order.
__global__ void atomic_sum(const float* in, float* out) {
  atomicAdd(out, in[blockIdx.x * blockDim.x + threadIdx.x]);
}

__global__ void nothing(float*) {}

// --- wrong --------------------------------------------------------------------------------------------------

__global__ void missing_barrier(float* out) {
  __shared__ float tile[64];
  tile[threadIdx.x] = static_cast<float>(threadIdx.x);
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

// The shuffle makes the threads wait for each other, and does not order memory.
__global__ void shuffle_for_a_barrier(float* out) {
  __shared__ float tile[32];
  tile[threadIdx.x] = static_cast<float>(threadIdx.x);
  const float zero = __shfl_sync(kAll, 0.0f, 0);
  out[threadIdx.x] = tile[31 - threadIdx.x] + zero;
}

// The tile is overwritten while others may still read it.
__global__ void missing_second_barrier(float* out) {
  __shared__ float tile[64];
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = static_cast<float>(round);
    __syncthreads();
    sum += tile[63 - threadIdx.x];
  }
  out[threadIdx.x] = sum;
}

__global__ void blocks_share_a_cell(float* out) { out[threadIdx.x] = static_cast<float>(blockIdx.x); }

__global__ void atomic_and_plain(float* out) {
  if (threadIdx.x == 0)
    out[0] = 1;
  else
    atomicAdd(out, 1.0f);
}

__global__ void divergent_barrier(float* out) {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __syncthreads_or(0);
  out[threadIdx.x] = 0;
}

__global__ void lane_never_arrives(float* out) {
  if (threadIdx.x == 3) __syncthreads();
  out[threadIdx.x] = __shfl_sync(kAll, 1.0f, 0);
  if (threadIdx.x != 3) __syncthreads();
}

__global__ void divergent_calls(float* out) {
  if (threadIdx.x < 16)
    out[threadIdx.x] = __shfl_sync(kAll, 1.0f, 0);
  else
    out[threadIdx.x] = static_cast<float>(__ballot_sync(kAll, 1));
}

__global__ void reads_a_lane_that_returned(float* out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = __shfl_sync(kAll, 1.0f, 7);
}

__global__ void mask_without_the_caller(float* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 0); }

__global__ void shared_index(float* out) {
  __shared__ float tile[16];
  tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[0];
}

struct alignas(16) Four {
  float v[4];
};
__global__ void misaligned(const float* in, float* out) {
  const Four four = *reinterpret_cast<const Four*>(in + 1);
  out[0] = four.v[0];
}

__global__ void overflow(float* out) {
  const int big = static_cast<int>(blockDim.x) * 0x7ffffff;
  out[0] = static_cast<float>(big * static_cast<int>(blockDim.x));
}

__global__ void too_much_shared(float* out) {
  __shared__ float a[8192];
  __shared__ float b[8192];
  a[threadIdx.x] = b[threadIdx.x] = 0;
  out[threadIdx.x] = a[threadIdx.x];
}

__global__ void uninitialised_shared(float* out) {
  __shared__ float cell;
  out[threadIdx.x] = cell;
}

__global__ void outside_the_tensor(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x]; }

std::string message;

template <typename F>
const char* caught(const F& f) {
  message.clear();
  try {
    f();
  } catch (const std::exception& e) {
    message = e.what();
    if (message.empty()) message = "an exception without text";
  }
  return message.c_str();
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED const char* cv_ops_run_kernel(const char* which, const unsigned* shape, const float* in, float* out) {
  const dim3 grid(shape[0], shape[1], shape[2]), block(shape[3], shape[4], shape[5]);
  const std::string name = which;
  void* stream = simt::current_stream();
  return caught([&] {
    if (name == "another_stream") return nothing<<<grid, block>>>(out);
    if (name == "block_sum") return block_sum<<<grid, block, 0, stream>>>(in, out);
    if (name == "groups_of_eight") return groups_of_eight<<<grid, block, 0, stream>>>(out);
    if (name == "some_threads_return") return some_threads_return<<<grid, block, 0, stream>>>(out);
    if (name == "barrier_votes") return barrier_votes<<<grid, block, 0, stream>>>(out);
    if (name == "places") return places<<<grid, block, 0, stream>>>(out);
    if (name == "atomic_sum") return atomic_sum<<<grid, block, 0, stream>>>(in, out);
    if (name == "nothing") return nothing<<<grid, block, 0, stream>>>(out);
    if (name == "missing_barrier") return missing_barrier<<<grid, block, 0, stream>>>(out);
    if (name == "shuffle_for_a_barrier") return shuffle_for_a_barrier<<<grid, block, 0, stream>>>(out);
    if (name == "missing_second_barrier") return missing_second_barrier<<<grid, block, 0, stream>>>(out);
    if (name == "blocks_share_a_cell") return blocks_share_a_cell<<<grid, block, 0, stream>>>(out);
    if (name == "atomic_and_plain") return atomic_and_plain<<<grid, block, 0, stream>>>(out);
    if (name == "divergent_barrier") return divergent_barrier<<<grid, block, 0, stream>>>(out);
    if (name == "lane_never_arrives") return lane_never_arrives<<<grid, block, 0, stream>>>(out);
    if (name == "divergent_calls") return divergent_calls<<<grid, block, 0, stream>>>(out);
    if (name == "reads_a_lane_that_returned") return reads_a_lane_that_returned<<<grid, block, 0, stream>>>(out);
    if (name == "mask_without_the_caller") return mask_without_the_caller<<<grid, block, 0, stream>>>(out);
    if (name == "shared_index") return shared_index<<<grid, block, 0, stream>>>(out);
    if (name == "misaligned") return misaligned<<<grid, block, 0, stream>>>(in, out);
    if (name == "overflow") return overflow<<<grid, block, 0, stream>>>(out);
    if (name == "too_much_shared") return too_much_shared<<<grid, block, 0, stream>>>(out);
    if (name == "uninitialised_shared") return uninitialised_shared<<<grid, block, 0, stream>>>(out);
    if (name == "outside_the_tensor") return outside_the_tensor<<<grid, block, 0, stream>>>(in, out);
    throw std::runtime_error("no kernel of this name");
  });
}

// 1 if a copied number is at the host before the stream is synchronised, 2 after it, 3 if both.
EXPORTED int cv_ops_copy_arrives() {
  const int from = 41;
  int to = 0, result = 0;
  cudaMemcpyAsync(&to, &from, sizeof to, cudaMemcpyDeviceToHost, simt::current_stream());
  if (to == 41) result |= 1;
  cudaStreamSynchronize(simt::current_stream());
  if (to == 41) result |= 2;
  return result;
}
