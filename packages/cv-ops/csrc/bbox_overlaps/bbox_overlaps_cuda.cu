// bbox_overlaps on CUDA. The result is written once, coalesced along its rows, and nothing else moves much:
// the floor is M * N * sizeof(T) bytes over the memory bandwidth.

#include "../common/cuda_utils.cuh"
#include "../common/move.h"
#include "bbox_overlaps.h"
#include "bbox_overlaps_args.h"

namespace cv::bbox_overlaps {
namespace {

constexpr int kRows = 16;  // rows per block: the column boxes are loaded once for all of them

template <typename T, typename A>
__device__ Box<A> load(const T* boxes, int64_t i, A offset) {
  const Pack<T, 4> v = *reinterpret_cast<const Pack<T, 4>*>(boxes + 4 * i);
  return make_box(static_cast<A>(v.v[0]), static_cast<A>(v.v[1]), static_cast<A>(v.v[2]), static_cast<A>(v.v[3]),
                  offset);
}

// Blocks: row groups of kRows times column groups of kThreads, columns fastest.
template <bool kForeground, typename T, typename A>
__global__ void pairwise_kernel(const T* a, int64_t m, const T* b, int64_t n, A offset, int64_t column_blocks,
                                int64_t blocks, T* out) {
  __shared__ Box<A> rows[kRows];
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t row0 = block / column_blocks * kRows;
    const int64_t j = block % column_blocks * kThreads + threadIdx.x;
    const int row_count = static_cast<int>(min(static_cast<int64_t>(kRows), m - row0));
    __syncthreads();  // the rows of the block before are no longer read
    if (static_cast<int>(threadIdx.x) < row_count) rows[threadIdx.x] = load<T, A>(a, row0 + threadIdx.x, offset);
    __syncthreads();
    if (j >= n) continue;
    const Box<A> box = load<T, A>(b, j, offset);
    for (int r = 0; r < row_count; ++r)
      out[(row0 + r) * n + j] = static_cast<T>(
          overlap<kForeground>(rows[r], box.x1, box.y1, box.x2, box.y2, box.area, offset));
  }
}

template <bool kForeground, typename T, typename A>
__global__ void elementwise_kernel(const T* a, const T* b, int64_t m, A offset, T* out) {
  CV_GRID_LOOP(int64_t, i, m) {
    const Box<A> box = load<T, A>(b, i, offset);
    out[i] = static_cast<T>(
        overlap<kForeground>(load<T, A>(a, i, offset), box.x1, box.y1, box.x2, box.y2, box.area, offset));
  }
}

template <bool kForeground, typename T>
void launch(const T* a, int64_t m, const T* b, int64_t n, bool aligned, opmath_t<T> offset, T* out,
            cudaStream_t stream) {
  using A = opmath_t<T>;
  if (aligned) {
    elementwise_kernel<kForeground, T, A><<<blocks_for(m), kThreads, 0, stream>>>(a, b, m, offset, out);
  } else {
    const int64_t column_blocks = (n + kThreads - 1) / kThreads, row_blocks = (m + kRows - 1) / kRows;
    const int64_t blocks = column_blocks * row_blocks;
    const unsigned grid = static_cast<unsigned>(blocks < (int64_t{1} << 30) ? blocks : (int64_t{1} << 30));
    pairwise_kernel<kForeground, T, A>
        <<<grid, kThreads, 0, stream>>>(a, m, b, n, offset, column_blocks, blocks, out);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

// Rows of four values must be aligned for the wide load; a view at an odd offset is copied.
Tensor as_aligned(const Tensor& t) {
  const Tensor c = as_contiguous(t);
  return aligned_to(c.const_data_ptr(), 4 * static_cast<size_t>(element_size(c))) ? c : Tensor(torch::stable::clone(c));
}

Tensor bbox_overlaps_cuda(const Tensor& bboxes1, const Tensor& bboxes2, bool foreground, bool aligned,
                          int64_t offset) {
  check(bboxes1, bboxes2, aligned);
  const CudaScope scope(bboxes1);
  const Tensor a = as_aligned(bboxes1), b = as_aligned(bboxes2);
  const Tensor out = new_output(a, b, aligned, a.scalar_type());
  if (out.numel() == 0) return out;
  dispatch_float(a.scalar_type(), "bbox_overlaps", [&](auto t) {
    using T = typename decltype(t)::type;
    (foreground ? launch<true, T> : launch<false, T>)(a.const_data_ptr<T>(), a.size(0), b.const_data_ptr<T>(),
                                                      b.size(0), aligned, opmath_t<T>(offset),
                                                      out.mutable_data_ptr<T>(), scope.stream);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("bbox_overlaps", CV_BOX(&bbox_overlaps_cuda)); }

}  // namespace cv::bbox_overlaps
