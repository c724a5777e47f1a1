// tin_shift on CUDA: a copy, 16 bytes at a time where chunks allow it. Floor: the tensor read and written once.

#include "../common/cuda_utils.cuh"
#include "tin_shift.h"
#include "tin_shift_args.h"

namespace cv::tin_shift {
namespace {

// W: what one thread moves; chunk and n are counted in it. index_t: enough for n and the overshoot of the loop.
template <typename W, typename index_t>
__global__ void shift_kernel(const W* __restrict__ from, const int64_t* __restrict__ shifts, W* __restrict__ to,
                             index_t n, index_t chunk, index_t groups, index_t times, bool back) {
  CV_GRID_LOOP(index_t, i, n) {
    const index_t chunk_index = i / chunk, row = chunk_index / groups, group = chunk_index - row * groups;
    const index_t sample = row / times, t = row - sample * times;
    const int64_t source = source_time(t, shifts[sample * groups + group], back, times);
    W value{};
    if (source >= 0) value = from[i + (static_cast<index_t>(source) - t) * groups * chunk];
    to[i] = value;
  }
}

// f(tag of W): the widest access that all addresses and the size of a chunk allow.
template <typename F>
void dispatch_width(int64_t chunk_bytes, const void* from, const void* to, F&& f) {
  auto fits = [&](int64_t bytes) {
    return chunk_bytes % bytes == 0 && aligned_to(from, bytes) && aligned_to(to, bytes);
  };
  if (fits(16)) return f(tag<uint4>{});
  if (fits(8)) return f(tag<uint2>{});
  if (fits(4)) return f(tag<unsigned>{});
  f(tag<unsigned short>{});
}

Tensor tin_shift_cuda(const Tensor& input, const Tensor& shift, bool back) {
  const Geometry g = geometry_of(input, shift);
  const CudaScope scope(input);
  const Tensor x = as_contiguous(input), s = as_contiguous(shift), out = empty_output(x);
  if (out.numel() == 0) return out;
  const int64_t size = element_size(x);
  STD_TORCH_CHECK(size > 0, "tin_shift is not implemented for ", torch::headeronly::toString(x.scalar_type()));
  const int64_t bytes = g.chunk * size;
  dispatch_width(bytes, x.const_data_ptr(), out.mutable_data_ptr(), [&](auto type) {
    using W = typename decltype(type)::type;
    const int64_t chunk = bytes / static_cast<int64_t>(sizeof(W)), n = g.n * g.times * g.groups * chunk;
    dispatch_index(n, [&](auto index) {
      using index_t = typename decltype(index)::type;
      shift_kernel<W, index_t><<<blocks_for(n), kThreads, 0, scope.stream>>>(
          static_cast<const W*>(x.const_data_ptr()), s.const_data_ptr<int64_t>(), static_cast<W*>(out.mutable_data_ptr()),
          static_cast<index_t>(n), static_cast<index_t>(chunk), static_cast<index_t>(g.groups),
          static_cast<index_t>(g.times), back);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("tin_shift", CV_BOX(&tin_shift_cuda)); }

}  // namespace cv::tin_shift
