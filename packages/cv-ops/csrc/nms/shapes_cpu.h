#pragma once
// NMS of shapes on the CPU. As nms: candidates in the order of their scores meet the kept boxes near them in the
// bounding-box tree of nms, here a tree of axis-aligned hulls with the areas of the shapes in them, which bounds the
// IoU from above; the few that remain are decided exactly. All in double.

#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "greedy_cpu.h"
#include "kept_boxes.h"
#include "shapes.h"

namespace cv::nms {

template <typename Rule, typename T>
class ShapeSuppressor {
 public:
  ShapeSuppressor(const T* boxes, double threshold) : source_(boxes), threshold_(threshold), tree_(0, threshold) {}

  const std::vector<int32_t>& keep(const int32_t* members, int64_t n, int64_t limit) {
    load(members, n);
    tree_.reset(hulls_, n);
    kept_.clear();
    vectorized([&] { greedy(n, limit); });
    return kept_;
  }

 private:
  using Shape = typename Rule::template Shape<double>;

  void load(const int32_t* members, int64_t n) {
    constexpr double inf = std::numeric_limits<double>::infinity();
    shapes_.resize(n);
    hulls_.reset(n);
    for (int64_t i = 0; i < n; ++i) {
      shapes_[i] = Rule::template make<double>(source_ + int64_t{Rule::kNumbers} * members[i]);
      hulls_.set(i, shapes_[i].area > 0 ? Rule::hull(shapes_[i]) : Box<double>{inf, inf, -inf, -inf, 0});
    }
  }

  void greedy(int64_t n, int64_t limit) {
    for (int64_t i = 0; i < n && static_cast<int64_t>(kept_.size()) < limit; ++i) {
      const Shape& shape = shapes_[i];
      if (shape.area > 0) {
        const Box<double> hull = hulls_.get(i);
        if (tree_.any_near(hull, [&](int32_t k) { return Rule::iou_exceeds(shapes_[k], shape, threshold_); })) continue;
        tree_.keep(i, hull);
      }
      kept_.push_back(static_cast<int32_t>(i));
    }
  }

  const T* source_;
  double threshold_;
  std::vector<Shape> shapes_;
  Boxes<double> hulls_;
  KeptTree<double> tree_;
  std::vector<int32_t> kept_;
};

// The whole operator.
template <typename Rule>
std::tuple<Tensor, Tensor> suppress_shapes_cpu(const Tensor& dets, const Tensor& scores,
                                               const std::optional<Tensor>& groups, double iou_threshold,
                                               double score_threshold, int64_t max_num) {
  check_shapes(Rule::kName, Rule::kNumbers, dets, scores, groups, iou_threshold);
  const Tensor b = as_contiguous(dets), s = as_contiguous(scores);
  std::optional<Tensor> g;
  if (groups) g = as_contiguous(*groups);
  std::tuple<Tensor, Tensor> result;
  dispatch_float(b.scalar_type(), Rule::kName, [&](auto t) {
    using T = typename decltype(t)::type;
    const T *bp = b.const_data_ptr<T>(), *sp = s.const_data_ptr<T>();
    const std::vector<int32_t> kept =
        greedy(order_by_score<opmath_t<T>>(sp, b.size(0), score_threshold), g ? g->const_data_ptr<int64_t>() : nullptr,
               max_num, [&] { return ShapeSuppressor<Rule, T>(bp, iou_threshold); });
    result = results<Rule::kNumbers>(b, bp, sp, kept);
  });
  return result;
}

}  // namespace cv::nms
