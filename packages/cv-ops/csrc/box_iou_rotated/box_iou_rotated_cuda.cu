// box_iou_rotated on CUDA. Boxes are prepared once (sine and cosine in double); a block then takes 16 rows and
// 256 columns, keeps the rows in shared memory and a column in each thread's registers, and computes the exact
// overlap where the axis-aligned hulls meet. The floor is the writing of the result.

#include "../common/box_sets.h"
#include "../common/cuda_utils.cuh"
#include "../common/rotated_boxes.h"

namespace cv::box_iou_rotated {
namespace {

constexpr int kRows = 16;

template <typename T, typename A>
__global__ void prepare_kernel(const T* boxes, int64_t n, RotatedBox<A>* out) {
  CV_GRID_LOOP(int64_t, i, n) {
    const T* b = boxes + 5 * i;
    out[i] = make_rotated_box<A>(static_cast<A>(b[0]), static_cast<A>(b[1]), static_cast<A>(b[2]),
                                 static_cast<A>(b[3]), static_cast<A>(b[4]));
  }
}

template <bool kForeground, typename A>
__device__ A overlap(const RotatedBox<A>& p, const RotatedBox<A>& q) {
  if (hulls_meet(p.x, p.y, p.ex, p.ey, q.x, q.y, q.ex, q.ey)) return rotated_overlap<kForeground>(p, q);
  return (p.area - p.area) + (q.area - q.area);  // 0, or NaN
}

// Blocks: row groups of kRows times column groups of kThreads, columns fastest.
template <bool kForeground, typename T, typename A>
__global__ void pairwise_kernel(const RotatedBox<A>* a, int64_t m, const RotatedBox<A>* b, int64_t n,
                                int64_t column_blocks, int64_t blocks, T* out) {
  __shared__ RotatedBox<A> rows[kRows];
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t row0 = block / column_blocks * kRows;
    const int64_t j = block % column_blocks * kThreads + threadIdx.x;
    const int row_count = static_cast<int>(min(static_cast<int64_t>(kRows), m - row0));
    __syncthreads();  // the rows of the block before are no longer read
    if (static_cast<int>(threadIdx.x) < row_count) rows[threadIdx.x] = a[row0 + threadIdx.x];
    __syncthreads();
    if (j >= n) continue;
    const RotatedBox<A> q = b[j];
#pragma unroll 1
    for (int r = 0; r < row_count; ++r) out[(row0 + r) * n + j] = static_cast<T>(overlap<kForeground>(rows[r], q));
  }
}

template <bool kForeground, typename T, typename A>
__global__ void elementwise_kernel(const RotatedBox<A>* a, const RotatedBox<A>* b, int64_t m, T* out) {
  CV_GRID_LOOP(int64_t, i, m) { out[i] = static_cast<T>(overlap<kForeground>(a[i], b[i])); }
}

template <typename T>
Tensor prepared(const Tensor& boxes, cudaStream_t stream) {
  using A = opmath_t<T>;
  static_assert(sizeof(RotatedBox<A>) == 9 * sizeof(A));
  const int64_t n = boxes.size(0);
  const Tensor out = empty_beside(boxes, {n, 9}, opmath_dtype(boxes.scalar_type()));
  prepare_kernel<T, A><<<blocks_for(n), kThreads, 0, stream>>>(
      boxes.const_data_ptr<T>(), n, reinterpret_cast<RotatedBox<A>*>(out.mutable_data_ptr<A>()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

template <bool kForeground, typename T>
void launch(const Tensor& bboxes1, const Tensor& bboxes2, bool aligned, T* out, cudaStream_t stream) {
  using A = opmath_t<T>;
  const int64_t m = bboxes1.size(0), n = bboxes2.size(0);
  const Tensor a = prepared<T>(bboxes1, stream), b = prepared<T>(bboxes2, stream);
  const auto* ap = reinterpret_cast<const RotatedBox<A>*>(a.const_data_ptr<A>());
  const auto* bp = reinterpret_cast<const RotatedBox<A>*>(b.const_data_ptr<A>());
  if (aligned) {
    elementwise_kernel<kForeground, T, A><<<blocks_for(m), kThreads, 0, stream>>>(ap, bp, m, out);
  } else {
    const int64_t column_blocks = (n + kThreads - 1) / kThreads, row_blocks = (m + kRows - 1) / kRows;
    const int64_t blocks = column_blocks * row_blocks;
    const unsigned grid = static_cast<unsigned>(blocks < (int64_t{1} << 30) ? blocks : (int64_t{1} << 30));
    pairwise_kernel<kForeground, T, A><<<grid, kThreads, 0, stream>>>(ap, m, bp, n, column_blocks, blocks, out);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor box_iou_rotated_cuda(const Tensor& bboxes1, const Tensor& bboxes2, bool foreground, bool aligned) {
  check_box_sets("box_iou_rotated", 5, bboxes1, bboxes2, aligned);
  const CudaScope scope(bboxes1);
  const Tensor a = as_contiguous(bboxes1), b = as_contiguous(bboxes2);
  const Tensor out = new_overlaps(a, b, aligned);
  if (out.numel() == 0) return out;
  dispatch_float(a.scalar_type(), "box_iou_rotated", [&](auto t) {
    using T = typename decltype(t)::type;
    (foreground ? launch<true, T> : launch<false, T>)(a, b, aligned, out.mutable_data_ptr<T>(), scope.stream);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("box_iou_rotated", CV_BOX(&box_iou_rotated_cuda)); }

}  // namespace cv::box_iou_rotated
