// box_iou_rotated on the CPU, and its schema. All arithmetic is in double, for every dtype.
//
// A row of the result, in blocks of columns: one vectorised loop compares the axis-aligned hulls, the few
// columns that are left are gathered into a list, and a second vectorised loop computes their exact overlap.

#include <algorithm>
#include <limits>
#include <vector>

#include "../common/box_sets.h"
#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/rotated_boxes.h"

namespace cv::box_iou_rotated {
namespace {

constexpr int64_t kBlock = 512;  // columns: what is known of them stays in the nearest cache

template <typename T>
RotatedBox<double> load(const T* boxes, int64_t i) {
  using A = opmath_t<T>;
  const T* b = boxes + 5 * i;
  return make_rotated_box<double>(A(b[0]), A(b[1]), A(b[2]), A(b[3]), A(b[4]));
}

struct Columns {
  std::vector<double> x, y, a, b, cos, sin, area, ex, ey;

  template <typename T>
  Columns(const T* boxes, int64_t n) : x(n), y(n), a(n), b(n), cos(n), sin(n), area(n), ex(n), ey(n) {
    for (int64_t i = 0; i < n; ++i) {
      const RotatedBox<double> r = load(boxes, i);
      x[i] = r.x, y[i] = r.y, a[i] = r.a, b[i] = r.b, cos[i] = r.cos, sin[i] = r.sin;
      area[i] = r.area, ex[i] = r.ex, ey[i] = r.ey;
    }
  }
};

// meet[j]: whether the hull of `p` meets that of column first + j. values[j]: 0, or NaN for a column of NaN.
inline void compare_hulls(const RotatedBox<double>& p, const Columns& columns, int64_t first, int64_t count,
                          int64_t* CV_RESTRICT meet, double* CV_RESTRICT values) {
  const double *x = &columns.x[first], *y = &columns.y[first], *ex = &columns.ex[first], *ey = &columns.ey[first];
  const double* area = &columns.area[first];
  const double px = p.x, py = p.y, pex = p.ex, pey = p.ey, nothing = p.area - p.area;
  for (int64_t j = 0; j < count; ++j) {
    meet[j] = hulls_meet(px, py, pex, pey, x[j], y[j], ex[j], ey[j]) ? 1 : 0;
    values[j] = nothing + (area[j] - area[j]);
  }
}

template <bool kForeground>
inline void overlaps(const RotatedBox<double> p, const Columns& columns, const int32_t* chosen, int64_t count,
                     double* CV_RESTRICT values) {
  const double *x = columns.x.data(), *y = columns.y.data(), *a = columns.a.data(), *b = columns.b.data();
  const double *cos = columns.cos.data(), *sin = columns.sin.data(), *area = columns.area.data();
  for (int64_t k = 0; k < count; ++k) {
    const int32_t j = chosen[k];
    const RotatedBox<double> q{x[j], y[j], a[j], b[j], cos[j], sin[j], area[j], 0, 0};
    values[k] = rotated_overlap<kForeground>(p, q);
  }
}

template <bool kForeground, typename T>
inline void pairwise_rows(const T* rows, int64_t begin, int64_t end, const Columns& columns, int64_t n, T* out) {
  int64_t meet[kBlock];
  int32_t chosen[kBlock];
  double values[kBlock], chosen_values[kBlock];
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t count = std::min(kBlock, n - first);
    for (int64_t i = begin; i < end; ++i) {
      const RotatedBox<double> p = load(rows, i);
      compare_hulls(p, columns, first, count, meet, values);
      int64_t found = 0;
      for (int64_t j = 0; j < count; ++j) {
        chosen[found] = static_cast<int32_t>(first + j);
        found += meet[j];
      }
      overlaps<kForeground>(p, columns, chosen, found, chosen_values);
      for (int64_t k = 0; k < found; ++k) values[chosen[k] - first] = chosen_values[k];
      T* row = out + i * n + first;
      for (int64_t j = 0; j < count; ++j) row[j] = static_cast<T>(static_cast<opmath_t<T>>(values[j]));
    }
  }
}

template <bool kForeground, typename T>
void pairwise(const T* a, int64_t m, const T* b, int64_t n, T* out) {
  STD_TORCH_CHECK(n < std::numeric_limits<int32_t>::max(), "box_iou_rotated: more than 2^31 boxes");
  const Columns columns(b, n);
  const int64_t rows_per_task = std::max<int64_t>(1, 8192 / std::max<int64_t>(n, 1));
  torch::stable::parallel_for(0, m, rows_per_task, [&](int64_t begin, int64_t end) {
    vectorized([&] { pairwise_rows<kForeground>(a, begin, end, columns, n, out); });
  });
}

template <bool kForeground, typename T>
void elementwise(const T* a, const T* b, int64_t m, T* out) {
  torch::stable::parallel_for(0, m, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const RotatedBox<double> p = load(a, i), q = load(b, i);
      double value = (p.area - p.area) + (q.area - q.area);
      if (hulls_meet(p.x, p.y, p.ex, p.ey, q.x, q.y, q.ex, q.ey)) value = rotated_overlap<kForeground>(p, q);
      out[i] = static_cast<T>(static_cast<opmath_t<T>>(value));
    }
  });
}

Tensor box_iou_rotated_cpu(const Tensor& bboxes1, const Tensor& bboxes2, bool foreground, bool aligned) {
  check_box_sets("box_iou_rotated", 5, bboxes1, bboxes2, aligned);
  const Tensor a = as_contiguous(bboxes1), b = as_contiguous(bboxes2);
  const Tensor out = new_overlaps(a, b, aligned);
  if (out.numel() == 0) return out;
  dispatch_float(a.scalar_type(), "box_iou_rotated", [&](auto t) {
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
  m.def("box_iou_rotated(Tensor bboxes1, Tensor bboxes2, bool foreground, bool aligned) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("box_iou_rotated", CV_BOX(&box_iou_rotated_cpu)); }

}  // namespace cv::box_iou_rotated
