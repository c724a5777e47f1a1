// box_iou_quadri on the CPU, and its schema. All arithmetic is in double, for every dtype.

#include <vector>

#include "../common/box_sets.h"
#include "../common/dispatch.h"
#include "../common/parallel.h"
#include "../common/quadrilateral.h"

namespace cv::box_iou_quadri {
namespace {

struct Columns {
  std::vector<polygon::Box<double>> boxes;  // apart from the rest: most pairs look at nothing else
  std::vector<polygon::Pieces<double>> pieces;
  std::vector<double> nothing;  // 0, or NaN

  template <typename T>
  Columns(const T* corners, int64_t n) {
    boxes.reserve(n), pieces.reserve(n), nothing.reserve(n);
    for (int64_t j = 0; j < n; ++j) {
      const auto q = make_quadrilateral<double>(corners + 8 * j);
      boxes.push_back(q.box);
      pieces.push_back(polygon::make_pieces(q.v));
      nothing.push_back(q.area - q.area);
    }
  }
};

template <bool kForeground, typename T>
void row(const T* corners, const Columns& columns, int64_t n, T* out) {
  const auto p = make_quadrilateral<double>(corners);
  const polygon::Pieces<double> pieces = polygon::make_pieces(p.v);
  for (int64_t j = 0; j < n; ++j) {
    double value = (p.area - p.area) + columns.nothing[j];
    if (polygon::boxes_meet(p.box, columns.boxes[j])) value += overlap_of_pieces<kForeground>(pieces, columns.pieces[j]);
    out[j] = static_cast<T>(static_cast<opmath_t<T>>(value));
  }
}

template <bool kForeground, typename T>
void pairwise(const T* a, int64_t m, const T* b, int64_t n, T* out) {
  const Columns columns(b, n);
  torch::stable::parallel_for(0, m, grain_for(200 + 50 * n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) row<kForeground>(a + 8 * i, columns, n, out + i * n);
  });
}

template <bool kForeground, typename T>
void elementwise(const T* a, const T* b, int64_t m, T* out) {
  torch::stable::parallel_for(0, m, grain_for(500), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto p = make_quadrilateral<double>(a + 8 * i), q = make_quadrilateral<double>(b + 8 * i);
      out[i] = static_cast<T>(static_cast<opmath_t<T>>(overlap<kForeground>(p, q)));
    }
  });
}

Tensor box_iou_quadri_cpu(const Tensor& bboxes1, const Tensor& bboxes2, bool foreground, bool aligned) {
  check_box_sets("box_iou_quadri", 8, bboxes1, bboxes2, aligned);
  const Tensor a = as_contiguous(bboxes1), b = as_contiguous(bboxes2);
  const Tensor out = new_overlaps(a, b, aligned);
  if (out.numel() == 0) return out;
  dispatch_float(a.scalar_type(), "box_iou_quadri", [&](auto t) {
    using T = typename decltype(t)::type;
    const T *ap = a.const_data_ptr<T>(), *bp = b.const_data_ptr<T>();
    T* op = out.mutable_data_ptr<T>();
    const int64_t m = a.size(0), n = b.size(0);
    if (aligned)
      (foreground ? elementwise<true, T> : elementwise<false, T>)(ap, bp, m, op);
    else
      (foreground ? pairwise<true, T> : pairwise<false, T>)(ap, m, bp, n, op);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("box_iou_quadri(Tensor bboxes1, Tensor bboxes2, bool foreground, bool aligned) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("box_iou_quadri", CV_BOX(&box_iou_quadri_cpu)); }

}  // namespace cv::box_iou_quadri
