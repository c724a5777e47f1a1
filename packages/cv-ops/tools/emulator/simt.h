#pragma once
// CUDA's execution model on one CPU thread, for kernels that g++ compiles as C++: see README.md beside this file.
//
// Every thread of a block is a fiber. Between two barriers the threads of a block run one after the other, in an
// order that is chosen (simt.cpp); blocks run one after the other. A barrier or a warp function that CUDA leaves
// undefined, or that would hang, is an error that names kernel, block and thread.
//
// emulate.py rewrites the two things that are not C++: `kernel<<<…>>>(…)` becomes simt::launch, and
// `__shared__ T name[N];` a reference to simt::shared.

#include <math.h>  // the C++ one: exp, floor … for float too, in the global namespace as in CUDA
#include <string.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>

// --- types and qualifiers ---------------------------------------------------------------------------------

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

// Of the running thread. Set before a fiber goes on, so they may be read at any time.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// --- the emulator -----------------------------------------------------------------------------------------

namespace simt {

using Kernel = std::function<void()>;
void run(const char* kernel, const char* file, int line, dim3 grid, dim3 block, size_t dynamic_shared, void* stream,
         const Kernel& thread);

// kernel<<<grid, block, dynamic_shared, stream>>>(args...)
template <typename Call, typename... Args>
void launch(const char* kernel, const char* file, int line, dim3 grid, dim3 block, size_t dynamic_shared, void* stream,
            const Call& call, const Args&... args) {
  run(kernel, file, line, grid, block, dynamic_shared, stream, [&] { call(args...); });
}

// The memory of one __shared__ declaration: the same for all threads of a block, filled with 0xFF before each.
void* shared_memory(const void* declaration, const char* name, size_t size, size_t alignment);

// `declaration` is a lambda expression, whose type is another in each place.
template <typename T, typename Declaration>
T& shared(const char* name, Declaration) {
  static_assert(std::is_trivially_destructible_v<T>, "__shared__ variables have no destructor");
  static const char declaration = 0;  // its address is what counts
  return *static_cast<T*>(shared_memory(&declaration, name, sizeof(T), alignof(T)));
}

enum class Barrier { kPlain, kOr, kAnd, kCount };
int barrier(Barrier kind, int value, const char* file, int line);

enum class Warp { kShuffle, kShuffleUp, kShuffleDown, kShuffleXor, kBallot, kAny, kAll, kSync };
// `argument`: lane, distance or mask of a shuffle
uint64_t warp(Warp kind, unsigned mask, uint64_t value, int argument, int width, const char* file, int line);

// Atomics are plain operations here, one thread running at a time; only the race detector has to know.
void atomic_access(const void* address, size_t size);

template <typename T>
uint64_t to_bits(T value) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "warp functions move numbers of up to 64 bits");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}
template <typename T>
T from_bits(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T, typename F>
__attribute__((no_sanitize("thread"))) T exchange(T* address, const F& next) {
  atomic_access(address, sizeof(T));
  const T old = *address;
  *address = next(old);
  return old;
}

}  // namespace simt

#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// --- barriers and warp functions --------------------------------------------------------------------------

inline void __syncthreads(SIMT_SITE) { simt::barrier(simt::Barrier::kPlain, 0, file, line); }
inline int __syncthreads_or(int value, SIMT_SITE) { return simt::barrier(simt::Barrier::kOr, value, file, line); }
inline int __syncthreads_and(int value, SIMT_SITE) { return simt::barrier(simt::Barrier::kAnd, value, file, line); }
inline int __syncthreads_count(int value, SIMT_SITE) { return simt::barrier(simt::Barrier::kCount, value, file, line); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SIMT_SITE) {
  return simt::from_bits<T>(simt::warp(simt::Warp::kShuffle, mask, simt::to_bits(value), lane, width, file, line));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  return simt::from_bits<T>(
      simt::warp(simt::Warp::kShuffleUp, mask, simt::to_bits(value), static_cast<int>(delta), width, file, line));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  return simt::from_bits<T>(
      simt::warp(simt::Warp::kShuffleDown, mask, simt::to_bits(value), static_cast<int>(delta), width, file, line));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SIMT_SITE) {
  return simt::from_bits<T>(simt::warp(simt::Warp::kShuffleXor, mask, simt::to_bits(value), lanes, width, file, line));
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE) {
  return static_cast<unsigned>(simt::warp(simt::Warp::kBallot, mask, predicate != 0, 0, 32, file, line));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_SITE) {
  return static_cast<int>(simt::warp(simt::Warp::kAny, mask, predicate != 0, 0, 32, file, line));
}
inline int __all_sync(unsigned mask, int predicate, SIMT_SITE) {
  return static_cast<int>(simt::warp(simt::Warp::kAll, mask, predicate != 0, 0, 32, file, line));
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_SITE) {
  simt::warp(simt::Warp::kSync, mask, 0, 0, 32, file, line);
}

// --- atomics ----------------------------------------------------------------------------------------------

template <typename T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  return simt::exchange(address, [&](T old) { return static_cast<T>(old + value); });
}
inline float4 atomicAdd(float4* address, float4 value) {
  float* p = reinterpret_cast<float*>(address);
  return {atomicAdd(p, value.x), atomicAdd(p + 1, value.y), atomicAdd(p + 2, value.z), atomicAdd(p + 3, value.w)};
}
template <typename T>
T atomicOr(T* address, std::common_type_t<T> value) {
  return simt::exchange(address, [&](T old) { return old | value; });
}
template <typename T>
T atomicAnd(T* address, std::common_type_t<T> value) {
  return simt::exchange(address, [&](T old) { return old & value; });
}
template <typename T>
T atomicMax(T* address, std::common_type_t<T> value) {
  return simt::exchange(address, [&](T old) { return old < value ? value : old; });
}
template <typename T>
T atomicMin(T* address, std::common_type_t<T> value) {
  return simt::exchange(address, [&](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicExch(T* address, std::common_type_t<T> value) {
  return simt::exchange(address, [&](T) { return value; });
}
template <typename T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  return simt::exchange(address, [&](T old) { return old == expected ? value : old; });
}

// --- arithmetic -------------------------------------------------------------------------------------------

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(v)); }

// As CUDA's: of floating-point numbers the one that is not NaN.
template <typename T, typename U>
std::common_type_t<T, U> min(T a, U b) {
  using C = std::common_type_t<T, U>;
  if constexpr (std::is_floating_point_v<C>) return std::fmin(static_cast<C>(a), static_cast<C>(b));
  return static_cast<C>(b) < static_cast<C>(a) ? static_cast<C>(b) : static_cast<C>(a);
}
template <typename T, typename U>
std::common_type_t<T, U> max(T a, U b) {
  using C = std::common_type_t<T, U>;
  if constexpr (std::is_floating_point_v<C>) return std::fmax(static_cast<C>(a), static_cast<C>(b));
  return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(b) : static_cast<C>(a);
}

inline float __expf(float v) { return ::exp2f(v * 1.44269504f); }
inline float __fdividef(float a, float b) { return a / b; }

// --- the runtime ------------------------------------------------------------------------------------------

using cudaError_t = int;
using cudaStream_t = void*;
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };

// A launch that a device would refuse is thrown by simt::launch, so there is never an error left here.
inline cudaError_t cudaGetLastError() { return 0; }
// What is copied arrives at the host with the next cudaStreamSynchronize, and not before.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
