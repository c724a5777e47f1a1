// points_in_polygons on the CPU, and its schema. The result is zeroed; of each block of points one vectorised loop
// looks which lie in the axis-aligned hull of a polygon, and only where one does, a second decides exactly.

#include <cstring>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/parallel.h"
#include "points_in_polygons.h"
#include "points_in_polygons_args.h"

namespace cv::points_in_polygons {
namespace {

constexpr int64_t kBlock = 64;  // points: neighbours on a grid of anchors, mostly outside together

inline int64_t compare_hulls(const double* x, const double* y, const Polygon& p) {
  int64_t found = 0;
  for (int64_t i = 0; i < kBlock; ++i) found += in_hull(x[i], y[i], p) ? 1 : 0;
  return found;
}

inline void decide(const double* x, const double* y, const Polygon p, int64_t* CV_RESTRICT inside) {
  for (int64_t i = 0; i < kBlock; ++i) inside[i] = is_inside(x[i], y[i], p) & (in_hull(x[i], y[i], p) ? 1 : 0);
}

template <typename T>
inline void blocks(const T* points, int64_t n, int64_t begin, int64_t end, const Polygon* polygons, int64_t m, T* out) {
  double x[kBlock], y[kBlock];
  int64_t inside[kBlock];
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kBlock, count = n - first < kBlock ? n - first : kBlock;
    for (int64_t i = 0; i < kBlock; ++i) {  // the last point again, in a block that is not full
      const int64_t k = first + (i < count ? i : count - 1);
      x[i] = static_cast<double>(points[2 * k]), y[i] = static_cast<double>(points[2 * k + 1]);
    }
    for (int64_t j = 0; j < m; ++j) {
      if (compare_hulls(x, y, polygons[j]) == 0) continue;
      decide(x, y, polygons[j], inside);
      for (int64_t i = 0; i < count; ++i) out[(first + i) * m + j] = static_cast<T>(static_cast<float>(inside[i]));
    }
  }
}

Tensor points_in_polygons_cpu(const Tensor& points, const Tensor& polygons) {
  check(points, polygons);
  const Tensor a = as_contiguous(points), b = as_contiguous(polygons);
  const int64_t n = a.size(0), m = b.size(0);
  const Tensor out = empty_beside(a, {n, m}, a.scalar_type());
  if (out.numel() == 0) return out;
  dispatch_float(a.scalar_type(), "points_in_polygons", [&](auto t) {
    using T = typename decltype(t)::type;
    const T *ap = a.const_data_ptr<T>(), *bp = b.const_data_ptr<T>();
    T* op = out.mutable_data_ptr<T>();
    std::vector<Polygon> made(static_cast<size_t>(m));
    for (int64_t j = 0; j < m; ++j) made[j] = make_polygon(bp + 8 * j);
    const Polygon* made_p = made.data();
    torch::stable::parallel_for(0, (n + kBlock - 1) / kBlock, grain_for(kBlock * m), [&](int64_t begin, int64_t end) {
      const int64_t last = end * kBlock < n ? end * kBlock : n;
      std::memset(static_cast<void*>(op + begin * kBlock * m), 0, sizeof(T) * (last - begin * kBlock) * m);
      vectorized([&] { blocks(ap, n, begin, end, made_p, m, op); });
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) { m.def("points_in_polygons(Tensor points, Tensor polygons) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("points_in_polygons", CV_BOX(&points_in_polygons_cpu)); }

}  // namespace cv::points_in_polygons
