// bbox_overlaps on the CPU, and its schema. The second boxes are turned into five arrays once; each row of
// the result is then one vectorised loop over them. Half types are computed and stored in float32 and
// rounded once.

#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "bbox_overlaps.h"
#include "bbox_overlaps_args.h"

namespace cv::bbox_overlaps {
namespace {

template <typename A>
struct Columns {
  std::vector<A> x1, y1, x2, y2, area;

  Columns(const A* boxes, int64_t n, A offset) : x1(n), y1(n), x2(n), y2(n), area(n) {
    for (int64_t i = 0; i < n; ++i) {
      const Box<A> b = make_box(boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3], offset);
      x1[i] = b.x1, y1[i] = b.y1, x2[i] = b.x2, y2[i] = b.y2, area[i] = b.area;
    }
  }
};

template <bool kForeground, typename A>
inline void pairwise_rows(const A* a, int64_t begin, int64_t end, const Columns<A>& columns, int64_t n, A offset,
                          A* out) {
  const A *x1 = columns.x1.data(), *y1 = columns.y1.data(), *x2 = columns.x2.data(), *y2 = columns.y2.data();
  const A* area = columns.area.data();
  for (int64_t i = begin; i < end; ++i) {
    const Box<A> box = make_box(a[4 * i], a[4 * i + 1], a[4 * i + 2], a[4 * i + 3], offset);
    A* CV_RESTRICT row = out + i * n;
    for (int64_t j = 0; j < n; ++j)
      row[j] = overlap<kForeground>(box, x1[j], y1[j], x2[j], y2[j], area[j], offset);
  }
}

template <bool kForeground, typename A>
void pairwise(const A* a, int64_t m, const A* b, int64_t n, A offset, A* out) {
  const Columns<A> columns(b, n, offset);
  const int64_t rows_per_task = std::max<int64_t>(1, 16384 / std::max<int64_t>(n, 1));
  torch::stable::parallel_for(0, m, rows_per_task, [&](int64_t begin, int64_t end) {
    vectorized([&] { pairwise_rows<kForeground>(a, begin, end, columns, n, offset, out); });
  });
}

template <bool kForeground, typename A>
inline void elementwise_range(const A* a, const A* b, int64_t begin, int64_t end, A offset, A* CV_RESTRICT out) {
  for (int64_t i = begin; i < end; ++i) {
    const A *p = a + 4 * i, *q = b + 4 * i;
    const Box<A> second = make_box(q[0], q[1], q[2], q[3], offset);
    out[i] = overlap<kForeground>(make_box(p[0], p[1], p[2], p[3], offset), second.x1, second.y1, second.x2,
                                  second.y2, second.area, offset);
  }
}

template <bool kForeground, typename A>
void elementwise(const A* a, const A* b, int64_t m, A offset, A* out) {
  torch::stable::parallel_for(0, m, 16384, [&](int64_t begin, int64_t end) {
    vectorized([&] { elementwise_range<kForeground>(a, b, begin, end, offset, out); });
  });
}

Tensor bbox_overlaps_cpu(const Tensor& bboxes1, const Tensor& bboxes2, bool foreground, bool aligned, int64_t offset) {
  check(bboxes1, bboxes2, aligned);
  const Tensor a = as_contiguous(to_opmath(bboxes1)), b = as_contiguous(to_opmath(bboxes2));
  Tensor out = new_output(a, b, aligned, a.scalar_type());
  dispatch_float_double(a.scalar_type(), "bbox_overlaps", [&](auto t) {
    using A = typename decltype(t)::type;
    const A *ap = a.const_data_ptr<A>(), *bp = b.const_data_ptr<A>();
    A* op = out.mutable_data_ptr<A>();
    const int64_t m = a.size(0), n = b.size(0);
    if (aligned)
      (foreground ? elementwise<true, A> : elementwise<false, A>)(ap, bp, m, A(offset), op);
    else
      (foreground ? pairwise<true, A> : pairwise<false, A>)(ap, m, bp, n, A(offset), op);
  });
  return to_dtype(std::move(out), bboxes1.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("bbox_overlaps(Tensor bboxes1, Tensor bboxes2, bool foreground, bool aligned, int offset) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("bbox_overlaps", CV_BOX(&bbox_overlaps_cpu)); }

}  // namespace cv::bbox_overlaps
