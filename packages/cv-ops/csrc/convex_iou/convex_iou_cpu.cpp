// convex_iou and convex_giou on the CPU, and their schemas. All arithmetic is in double, for every dtype.

#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/parallel.h"
#include "convex_iou.h"
#include "convex_iou_args.h"

namespace cv::convex_iou {
namespace {

using Row = Hull<double>;

struct Polygons {
  std::vector<Box<double>> boxes;  // apart from the rest: most pairs look at nothing else
  std::vector<Pieces<double>> pieces;

  template <typename T>
  Polygons(const T* corners, int64_t n) {
    boxes.reserve(n), pieces.reserve(n);
    for (int64_t j = 0; j < n; ++j) {
      Point<double> v[4];
      load_points(corners + 8 * j, 4, v);
      boxes.push_back(box_of(v, 4));
      pieces.push_back(polygon::make_pieces(v));
      pieces.back().area += polygon::nothing_or_nan(v, 4);
    }
  }
};

template <typename T>
void row(const Row& hull, const Polygons& polygons, int64_t n, T* out) {
  for (int64_t j = 0; j < n; ++j) {
    double value = (hull.area - hull.area) + (polygons.pieces[j].area - polygons.pieces[j].area);  // 0 or NaN
    if (boxes_meet(hull.box, polygons.boxes[j])) value = iou(hull, polygons.pieces[j]);
    out[j] = static_cast<T>(value);
  }
}

Tensor convex_iou_cpu(const Tensor& pointsets, const Tensor& polygons) {
  check(pointsets, polygons);
  const Tensor a = as_contiguous(pointsets), b = as_contiguous(polygons);
  const int64_t m = a.size(0), n = b.size(0);
  const Tensor out = empty_beside(a, {m, n}, a.scalar_type());
  if (out.numel() == 0) return out;
  dispatch_float(a.scalar_type(), "convex_iou", [&](auto t) {
    using T = typename decltype(t)::type;
    const T* ap = a.const_data_ptr<T>();
    T* op = out.mutable_data_ptr<T>();
    const Polygons columns(b.const_data_ptr<T>(), n);
    torch::stable::parallel_for(0, m, grain_for(200 + 50 * n), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) row(make_hull<double>(ap + 18 * i), columns, n, op + i * n);
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> convex_giou_cpu(const Tensor& pointsets, const Tensor& polygons) {
  check_aligned(pointsets, polygons);
  const Tensor a = as_contiguous(pointsets), b = as_contiguous(polygons);
  const int64_t m = a.size(0);
  const Tensor out = empty_beside(a, {m}, a.scalar_type()), grad = empty_beside(a, {m, 18}, a.scalar_type());
  dispatch_float(a.scalar_type(), "convex_giou", [&](auto t) {
    using T = typename decltype(t)::type;
    const T *ap = a.const_data_ptr<T>(), *bp = b.const_data_ptr<T>();
    T *op = out.mutable_data_ptr<T>(), *gp = grad.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, m, grain_for(2000), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) giou_row<double>(ap + 18 * i, bp + 8 * i, op + i, gp + 18 * i);
    });
  });
  return {out, grad};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("convex_iou(Tensor pointsets, Tensor polygons) -> Tensor");
  m.def("convex_giou(Tensor pointsets, Tensor polygons) -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("convex_iou", CV_BOX(&convex_iou_cpu));
  m.impl("convex_giou", CV_BOX(&convex_giou_cpu));
}

}  // namespace cv::convex_iou
