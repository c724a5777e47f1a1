// points_in_polygons on CUDA: a thread for each pair, columns fastest. The floor is the writing of the result.

#include "../common/cuda_utils.cuh"
#include "points_in_polygons.h"
#include "points_in_polygons_args.h"

namespace cv::points_in_polygons {
namespace {

template <typename T, typename index_t>
__global__ void inside_kernel(const T* points, const T* polygons, index_t m, index_t total, T* out) {
  CV_GRID_LOOP(index_t, i, total) {
    const index_t row = i / m, column = i - row * m;
    const double x = static_cast<double>(points[2 * row]), y = static_cast<double>(points[2 * row + 1]);
    const Polygon p = make_polygon(polygons + 8 * column);
    out[i] = static_cast<T>(in_hull(x, y, p) && is_inside(x, y, p) ? 1.f : 0.f);
  }
}

Tensor points_in_polygons_cuda(const Tensor& points, const Tensor& polygons) {
  check(points, polygons);
  const CudaScope scope(points);
  const Tensor a = as_contiguous(points), b = as_contiguous(polygons);
  const Tensor out = empty_beside(a, {a.size(0), b.size(0)}, a.scalar_type());
  const int64_t total = out.numel();
  if (total == 0) return out;
  dispatch_float(a.scalar_type(), "points_in_polygons", [&](auto t) {
    using T = typename decltype(t)::type;
    dispatch_index(total, [&](auto index) {
      using index_t = typename decltype(index)::type;
      inside_kernel<T, index_t><<<blocks_for(total), kThreads, 0, scope.stream>>>(
          a.const_data_ptr<T>(), b.const_data_ptr<T>(), static_cast<index_t>(b.size(0)), static_cast<index_t>(total),
          out.mutable_data_ptr<T>());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("points_in_polygons", CV_BOX(&points_in_polygons_cuda)); }

}  // namespace cv::points_in_polygons
