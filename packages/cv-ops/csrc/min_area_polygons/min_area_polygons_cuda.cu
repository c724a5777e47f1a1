// min_area_polygons on CUDA: a thread for each set of points.

#include "../common/cuda_utils.cuh"
#include "min_area_polygons.h"
#include "min_area_polygons_args.h"

namespace cv::min_area_polygons {
namespace {

template <typename T>
__global__ void rectangle_kernel(const T* pointsets, int64_t n, T* out) {
  CV_GRID_LOOP(int64_t, i, n) rectangle_row<opmath_t<T>>(pointsets + 18 * i, out + 8 * i);
}

Tensor min_area_polygons_cuda(const Tensor& pointsets) {
  check(pointsets);
  const CudaScope scope(pointsets);
  const Tensor a = as_contiguous(pointsets);
  const int64_t n = a.size(0);
  const Tensor out = empty_beside(a, {n, 8}, a.scalar_type());
  if (n == 0) return out;
  dispatch_float(a.scalar_type(), "min_area_polygons", [&](auto t) {
    using T = typename decltype(t)::type;
    rectangle_kernel<T><<<blocks_for(n), kThreads, 0, scope.stream>>>(a.const_data_ptr<T>(), n,
                                                                      out.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("min_area_polygons", CV_BOX(&min_area_polygons_cuda)); }

}  // namespace cv::min_area_polygons
