// nms_match on the CPU, and its schema: each suppressed box looks through the kept ones, 16 at a time.

#include <tuple>

#include "../common/isa.h"
#include "../nms/kept_boxes.h"
#include "nms_match_args.h"

namespace cv::nms_match {
namespace {

using nms::kLanes;

// The first kept box that suppresses `b`; `count` if there is none.
template <typename A>
inline int64_t first_suppressing(const nms::Boxes<A>& kept, int64_t count, const nms::Box<A>& b, A threshold) {
  for (int64_t f = 0; f < count; f += kLanes) {
    if (!nms::any_suppresses(kept, f, b, A(0), threshold)) continue;
    for (int64_t r = f;; ++r)
      if (nms::iou_exceeds(b, kept.x1[r], kept.y1[r], kept.x2[r], kept.y2[r], kept.area[r], A(0), threshold)) return r;
  }
  return count;
}

template <typename T>
void assign(const T* boxes, int64_t n, const int64_t* keep, int64_t k, double iou_threshold, int64_t* group) {
  using A = opmath_t<T>;
  const auto load = [&](int64_t i) {
    const T* b = boxes + 4 * i;
    return nms::make_box(A(b[0]), A(b[1]), A(b[2]), A(b[3]), A(0));
  };
  nms::Boxes<A> kept;
  kept.reset(k);
  std::fill(group, group + n, int64_t{-1});
  for (int64_t r = 0; r < k; ++r) {
    STD_TORCH_CHECK(keep[r] >= 0 && keep[r] < n, "nms_match: keep[", r, "] is ", keep[r], ", there are ", n, " boxes");
    kept.set(r, load(keep[r]));
    group[keep[r]] = r;
  }
  torch::stable::parallel_for(0, n, 256, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t i = begin; i < end; ++i)
        if (group[i] < 0) group[i] = first_suppressing(kept, k, load(i), A(iou_threshold));
    });
  });
}

std::tuple<Tensor, Tensor> nms_match_cpu(const Tensor& boxes, const Tensor& scores, const Tensor& keep,
                                         double iou_threshold) {
  check(boxes, scores, keep);
  const Tensor b = as_contiguous(boxes), s = as_contiguous(scores), k = as_contiguous(keep);
  const Tensor group = empty_beside(b, {b.size(0)}, ScalarType::Long);
  std::tuple<Tensor, Tensor> result;
  dispatch_float(b.scalar_type(), "nms_match", [&](auto t) {
    using T = typename decltype(t)::type;
    assign(b.const_data_ptr<T>(), b.size(0), k.const_data_ptr<int64_t>(), k.size(0), iou_threshold,
           group.mutable_data_ptr<int64_t>());
    result = members_of(group, s.const_data_ptr<T>(), k.size(0));
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("nms_match(Tensor boxes, Tensor scores, Tensor keep, float iou_threshold) -> (Tensor members, Tensor sizes)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("nms_match", CV_BOX(&nms_match_cpu)); }

}  // namespace cv::nms_match
