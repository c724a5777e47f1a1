// active_rotated_filter on CUDA: a small kernel makes the tables, then a thread takes an element. Indices out of range
// name no place; to raise for them would make the host wait. The result is the same in every run.

#include "../common/cuda_utils.cuh"
#include "active_rotated_filter_args.h"

namespace cv::active_rotated_filter {
namespace {

__global__ void table_kernel(const int32_t* indices, Sizes s, int32_t* sources, int32_t* targets) {
  CV_GRID_LOOP(int64_t, r, s.rotations) fill_tables(indices, r, s, sources, targets);
}

// (2, rotations, entries): sources, targets
Tensor make_tables(const Tensor& indices, const Sizes& s, cudaStream_t stream) {
  const Tensor dense = as_contiguous(indices);
  const Tensor tables = empty_beside(dense, {2, s.rotations, s.entries}, ScalarType::Int);
  int32_t* values = tables.mutable_data_ptr<int32_t>();
  table_kernel<<<blocks_for(s.rotations, 32), 32, 0, stream>>>(dense.const_data_ptr<int32_t>(), s, values,
                                                               values + s.table());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return tables;
}

template <typename T, typename index_t>
__global__ void forward_kernel(const T* from, const int32_t* sources, index_t inputs, index_t entries,
                               index_t rotations, index_t n, T* to) {
  CV_GRID_LOOP(index_t, at, n) {
    const index_t row = at / entries, place = at - row * entries;
    const index_t filter = row / inputs, i = row - filter * inputs;
    const index_t o = filter / rotations, r = filter - o * rotations;
    const int32_t source = sources[r * entries + place];
    to[at] = source < 0 ? static_cast<T>(0.f) : from[(o * inputs + i) * entries + static_cast<index_t>(source)];
  }
}

template <typename T, typename index_t>
__global__ void backward_kernel(const T* from, const int32_t* targets, index_t inputs, index_t entries,
                                index_t rotations, index_t n, T* to) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(index_t, at, n) {
    const index_t row = at / entries, e = at - row * entries, o = row / inputs, i = row - o * inputs;
    A sum = A(0);
    for (index_t r = 0; r < rotations; ++r) {
      const int32_t target = targets[r * entries + e];
      if (target >= 0)
        sum += static_cast<A>(from[((o * rotations + r) * inputs + i) * entries + static_cast<index_t>(target)]);
    }
    to[at] = static_cast<T>(sum);
  }
}

Tensor active_rotated_filter_cuda(const Tensor& input, const Tensor& indices) {
  const Sizes s = forward_sizes(input, indices);
  const CudaScope scope(input);
  const Tensor x = as_contiguous(input), out = new_output(x, s);
  const int64_t n = out.numel();
  if (n == 0) return out;
  const Tensor tables = make_tables(indices, s, scope.stream);
  dispatch_float(x.scalar_type(), "active_rotated_filter", [&](auto t) {
    using T = typename decltype(t)::type;
    dispatch_index(n, [&](auto index) {
      using index_t = typename decltype(index)::type;
      forward_kernel<T, index_t><<<blocks_for(n), kThreads, 0, scope.stream>>>(
          x.const_data_ptr<T>(), tables.const_data_ptr<int32_t>(), static_cast<index_t>(s.inputs),
          static_cast<index_t>(s.entries), static_cast<index_t>(s.rotations), static_cast<index_t>(n),
          out.mutable_data_ptr<T>());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

Tensor active_rotated_filter_backward_cuda(const Tensor& grad, const Tensor& indices) {
  const Sizes s = backward_sizes(grad, indices);
  const CudaScope scope(grad);
  const Tensor g = as_contiguous(grad), out = new_gradient(g, indices, s);
  const int64_t n = out.numel();
  if (n == 0) return out;
  const Tensor tables = make_tables(indices, s, scope.stream);
  dispatch_float(g.scalar_type(), "active_rotated_filter_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    dispatch_index(g.numel(), [&](auto index) {
      using index_t = typename decltype(index)::type;
      backward_kernel<T, index_t><<<blocks_for(n), kThreads, 0, scope.stream>>>(
          g.const_data_ptr<T>(), tables.const_data_ptr<int32_t>() + s.table(), static_cast<index_t>(s.inputs),
          static_cast<index_t>(s.entries), static_cast<index_t>(s.rotations), static_cast<index_t>(n),
          out.mutable_data_ptr<T>());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("active_rotated_filter", CV_BOX(&active_rotated_filter_cuda));
  m.impl("active_rotated_filter_backward", CV_BOX(&active_rotated_filter_backward_cuda));
}

}  // namespace cv::active_rotated_filter
