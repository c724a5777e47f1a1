// box_iou_quadri on CUDA. Quadrilaterals are prepared once; then a thread takes a pair, columns fastest, and cuts only
// where the axis-aligned hulls meet.

#include "../common/box_sets.h"
#include "../common/cuda_utils.cuh"
#include "../common/quadrilateral.h"

namespace cv::box_iou_quadri {
namespace {

template <typename T, typename A>
__global__ void prepare_kernel(const T* corners, int64_t n, Quadrilateral<A>* out) {
  CV_GRID_LOOP(int64_t, i, n) out[i] = make_quadrilateral<A>(corners + 8 * i);
}

template <bool kForeground, typename T, typename A>
__global__ void pair_kernel(const Quadrilateral<A>* a, const Quadrilateral<A>* b, int64_t n, int64_t total, bool aligned,
                            T* out) {
  CV_GRID_LOOP(int64_t, i, total) {
    const int64_t row = aligned ? i : i / n, column = aligned ? i : i - row * n;
    out[i] = static_cast<T>(overlap<kForeground>(a[row], b[column]));
  }
}

template <typename T>
Tensor prepared(const Tensor& corners, cudaStream_t stream) {
  using A = opmath_t<T>;
  using Shape = Quadrilateral<A>;
  const int64_t n = corners.size(0);
  const Tensor out = empty_beside(corners, {n, sizeof(Shape) / sizeof(A)}, opmath_dtype(corners.scalar_type()));
  prepare_kernel<T, A><<<blocks_for(n), kThreads, 0, stream>>>(corners.const_data_ptr<T>(), n,
                                                               reinterpret_cast<Shape*>(out.mutable_data_ptr<A>()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

template <bool kForeground, typename T>
void launch(const Tensor& bboxes1, const Tensor& bboxes2, bool aligned, const Tensor& out, cudaStream_t stream) {
  using A = opmath_t<T>;
  const Tensor a = prepared<T>(bboxes1, stream), b = prepared<T>(bboxes2, stream);
  const auto* rows = reinterpret_cast<const Quadrilateral<A>*>(a.const_data_ptr<A>());
  const auto* columns = reinterpret_cast<const Quadrilateral<A>*>(b.const_data_ptr<A>());
  const int64_t total = out.numel();
  pair_kernel<kForeground, T, A><<<blocks_for(total), kThreads, 0, stream>>>(rows, columns, bboxes2.size(0), total,
                                                                             aligned, out.mutable_data_ptr<T>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor box_iou_quadri_cuda(const Tensor& bboxes1, const Tensor& bboxes2, bool foreground, bool aligned) {
  check_box_sets("box_iou_quadri", 8, bboxes1, bboxes2, aligned);
  const CudaScope scope(bboxes1);
  const Tensor a = as_contiguous(bboxes1), b = as_contiguous(bboxes2);
  const Tensor out = new_overlaps(a, b, aligned);
  if (out.numel() == 0) return out;
  dispatch_float(a.scalar_type(), "box_iou_quadri", [&](auto t) {
    using T = typename decltype(t)::type;
    (foreground ? launch<true, T> : launch<false, T>)(a, b, aligned, out, scope.stream);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("box_iou_quadri", CV_BOX(&box_iou_quadri_cuda)); }

}  // namespace cv::box_iou_quadri
