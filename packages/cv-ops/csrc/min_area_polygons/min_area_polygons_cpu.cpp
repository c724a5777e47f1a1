// min_area_polygons on the CPU, and its schema. All arithmetic is in double, for every dtype.

#include "../common/dispatch.h"
#include "../common/parallel.h"
#include "min_area_polygons.h"
#include "min_area_polygons_args.h"

namespace cv::min_area_polygons {
namespace {

Tensor min_area_polygons_cpu(const Tensor& pointsets) {
  check(pointsets);
  const Tensor a = as_contiguous(pointsets);
  const int64_t n = a.size(0);
  const Tensor out = empty_beside(a, {n, 8}, a.scalar_type());
  dispatch_float(a.scalar_type(), "min_area_polygons", [&](auto t) {
    using T = typename decltype(t)::type;
    const T* ap = a.const_data_ptr<T>();
    T* op = out.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, n, grain_for(600), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) rectangle_row<double>(ap + 18 * i, op + 8 * i);
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) { m.def("min_area_polygons(Tensor pointsets) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("min_area_polygons", CV_BOX(&min_area_polygons_cpu)); }

}  // namespace cv::min_area_polygons
