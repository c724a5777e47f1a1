// nms_rotated on the CPU, and its schema. As nms: candidates in the order of their scores meet the kept boxes
// near them in the bounding-box tree of nms, here a tree of axis-aligned hulls with the areas of the boxes in
// them, which bounds the IoU from above; the few that remain are decided exactly. All in double.

#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../nms/greedy_cpu.h"
#include "../nms/kept_boxes.h"
#include "nms_rotated.h"

namespace cv::nms_rotated {
namespace {

using Rotated = RotatedBox<double>;

nms::Box<double> hull(const Rotated& r) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  if (!(r.area > 0)) return {inf, inf, -inf, -inf, 0};
  return {r.x - r.ex, r.y - r.ey, r.x + r.ex, r.y + r.ey, r.area};
}

template <typename T>
class Suppressor {
 public:
  Suppressor(const T* boxes, double threshold) : source_(boxes), threshold_(threshold), tree_(0, threshold) {}

  const std::vector<int32_t>& keep(const int32_t* members, int64_t n, int64_t limit) {
    load(members, n);
    tree_.reset(hulls_, n);
    kept_.clear();
    vectorized([&] { greedy(n, limit); });
    return kept_;
  }

 private:
  void load(const int32_t* members, int64_t n) {
    using A = opmath_t<T>;
    rotated_.resize(n);
    hulls_.reset(n);
    for (int64_t i = 0; i < n; ++i) {
      const T* b = source_ + int64_t{5} * members[i];
      rotated_[i] = make_rotated_box<double>(A(b[0]), A(b[1]), A(b[2]), A(b[3]), A(b[4]));
      hulls_.set(i, hull(rotated_[i]));
    }
  }

  void greedy(int64_t n, int64_t limit) {
    for (int64_t i = 0; i < n && static_cast<int64_t>(kept_.size()) < limit; ++i) {
      const Rotated& box = rotated_[i];
      if (box.area > 0) {
        const nms::Box<double> bounds = hulls_.get(i);
        if (tree_.any_near(bounds, [&](int32_t k) { return iou_exceeds(rotated_[k], box, threshold_); })) continue;
        tree_.keep(i, bounds);
      }
      kept_.push_back(static_cast<int32_t>(i));
    }
  }

  const T* source_;
  double threshold_;
  std::vector<Rotated> rotated_;
  nms::Boxes<double> hulls_;
  nms::KeptTree<double> tree_;
  std::vector<int32_t> kept_;
};

std::tuple<Tensor, Tensor> nms_rotated_cpu(const Tensor& dets, const Tensor& scores,
                                           const std::optional<Tensor>& groups, double iou_threshold,
                                           double score_threshold, int64_t max_num) {
  check(dets, scores, groups, iou_threshold);
  const Tensor b = as_contiguous(dets), s = as_contiguous(scores);
  std::optional<Tensor> g;
  if (groups) g = as_contiguous(*groups);
  std::tuple<Tensor, Tensor> result;
  dispatch_float(b.scalar_type(), "nms_rotated", [&](auto t) {
    using T = typename decltype(t)::type;
    const T *bp = b.const_data_ptr<T>(), *sp = s.const_data_ptr<T>();
    const std::vector<int32_t> kept =
        nms::greedy(nms::order_by_score<opmath_t<T>>(sp, b.size(0), score_threshold),
                    g ? g->const_data_ptr<int64_t>() : nullptr, max_num,
                    [&] { return Suppressor<T>(bp, iou_threshold); });
    result = nms::results<5>(b, bp, sp, kept);
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("nms_rotated(Tensor dets, Tensor scores, Tensor? groups, float iou_threshold, float score_threshold, "
        "int max_num) -> (Tensor dets, Tensor keep)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("nms_rotated", CV_BOX(&nms_rotated_cpu)); }

}  // namespace cv::nms_rotated
