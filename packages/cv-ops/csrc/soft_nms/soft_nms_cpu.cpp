// soft_nms on the CPU, and its schema.
//
// Boxes lie along a Morton curve, so that a block of 16 is a small region, with the bounds and the largest score
// of each block beside them. A step takes the best box and lowers scores in the blocks whose bounds it overlaps,
// one vectorised pass each. Groups are independent and run in parallel.

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../nms/greedy_cpu.h"
#include "../nms/kept_boxes.h"
#include "soft_nms_args.h"

namespace cv::soft_nms {
namespace {

using nms::kLanes;

// Lowers the scores of 16 boxes for the chosen `b`; their largest score.
template <Method kMethod, typename A>
inline A lower_block(const nms::Box<A> b, const A* CV_RESTRICT x1, const A* CV_RESTRICT y1, const A* CV_RESTRICT x2,
                     const A* CV_RESTRICT y2, const A* CV_RESTRICT area, A* CV_RESTRICT scores, const Decay<A> d) {
  for (int i = 0; i < kLanes; ++i)
    scores[i] = filtered(scores[i] * factor<kMethod>(b, x1[i], y1[i], x2[i], y2[i], area[i], d), d.min_score);
  A best[kLanes];
  for (int i = 0; i < kLanes; ++i) best[i] = scores[i];
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) best[i] = nms::larger(best[i], best[i + half]);
  return best[0];
}

template <typename T>
class Decayer {
  using A = opmath_t<T>;

 public:
  Decayer(const T* boxes, const T* scores, const Decay<A>& decay, Method method)
      : source_(boxes), source_scores_(scores), decay_(decay), method_(method) {}

  // final[i] for each member i: its score when it was the best, or -infinity where it fell below min_score.
  void run(const int32_t* members, int64_t n, A* final) {
    load(members, n);
    dispatch_method(method_, [&](auto m) { vectorized([&] { take_all<decltype(m)::value>(final); }); });
  }

 private:
  static constexpr A kOut = -std::numeric_limits<A>::infinity();

  void load(const int32_t* members, int64_t n) {
    given_.reset(n);
    for (int64_t i = 0; i < n; ++i) {
      const T* b = source_ + int64_t{4} * members[i];
      given_.set(i, nms::make_box(A(b[0]), A(b[1]), A(b[2]), A(b[3]), decay_.offset));
    }
    const std::vector<int32_t> order = nms::morton_order(given_, n);
    index_.resize(n);
    boxes_.reset(n);
    bounds_.reset((n + kLanes - 1) / kLanes);
    scores_.assign(boxes_.slots(), kOut);
    best_.assign(boxes_.slots() / kLanes, kOut);
    first_.assign(best_.size(), -1);
    near_.assign(best_.size(), 0);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t block = i / kLanes;
      const nms::Box<A> b = given_.get(order[i]);
      index_[i] = members[order[i]];
      boxes_.set(i, b);
      bounds_.widen(block, b);
      scores_[i] = filtered(A(source_scores_[index_[i]]), decay_.min_score);
      best_[block] = nms::larger(best_[block], scores_[i]);
    }
  }

  template <Method kMethod>
  void take_all(A* final) {
    for (int64_t i; (i = best_box()) >= 0;) {
      final[index_[i]] = scores_[i];
      scores_[i] = kOut;
      const nms::Box<A> b = boxes_.get(i);
      find_near(b);
      near_[i / kLanes] = 1;  // its best is gone
      for (size_t k = 0; k < near_.size(); ++k) {
        if (!near_[k] || best_[k] == kOut) continue;
        const int64_t f = static_cast<int64_t>(k) * kLanes;
        first_[k] = -1;
        best_[k] = lower_block<kMethod>(b, &boxes_.x1[f], &boxes_.y1[f], &boxes_.x2[f], &boxes_.y2[f],
                                        &boxes_.area[f], &scores_[f], decay_);
      }
    }
  }

  // The slot of the largest score, of equal ones that of the lowest index; -1 when all are out.
  int64_t best_box() {
    A best = kOut;
    for (const A score : best_) best = nms::larger(best, score);
    if (best == kOut) return -1;
    int32_t found = -1;
    for (size_t k = 0; k < best_.size(); ++k) {
      if (best_[k] != best) continue;
      if (first_[k] < 0) first_[k] = first_best(static_cast<int64_t>(k));
      if (found < 0 || index_[first_[k]] < index_[found]) found = first_[k];
    }
    return found;
  }

  // The slot in block k of its largest score, of equal ones that of the lowest index.
  int32_t first_best(int64_t k) const {
    const int64_t end = std::min((k + 1) * kLanes, static_cast<int64_t>(index_.size()));
    int64_t found = -1;
    for (int64_t i = k * kLanes; i < end; ++i)
      if (scores_[i] == best_[k] && (found < 0 || index_[i] < index_[found])) found = i;
    return static_cast<int32_t>(found);
  }

  // near_[k]: whether `b` overlaps the bounds of block k.
  void find_near(const nms::Box<A> b) {
    const A *x1 = bounds_.x1, *y1 = bounds_.y1, *x2 = bounds_.x2, *y2 = bounds_.y2;
    uint8_t* CV_RESTRICT near = near_.data();
    const A offset = decay_.offset;
    const int64_t count = static_cast<int64_t>(near_.size());
    for (int64_t k = 0; k < count; ++k)
      near[k] = (nms::overlap_side(x1[k], x2[k], b.x1, b.x2, offset) > A(0)) &
                (nms::overlap_side(y1[k], y2[k], b.y1, b.y2, offset) > A(0));
  }

  const T *source_, *source_scores_;
  Decay<A> decay_;
  Method method_;
  nms::Boxes<A> given_, boxes_, bounds_;  // boxes: as given, along the curve; bounds of each block
  std::vector<A> scores_, best_;
  std::vector<int32_t> index_;  // which box lies where
  std::vector<int32_t> first_;  // the slot of the best of each block; -1: to be found, when it is asked for
  std::vector<uint8_t> near_;
};

template <typename T>
std::vector<opmath_t<T>> final_scores(const T* boxes, const T* scores, const int64_t* groups, int64_t n,
                                      const Decay<opmath_t<T>>& decay, Method method) {
  using A = opmath_t<T>;
  std::vector<A> final(n, -std::numeric_limits<A>::infinity());
  std::vector<int32_t> members(n);
  std::iota(members.begin(), members.end(), 0);
  if (groups == nullptr) {
    Decayer<T>(boxes, scores, decay, method).run(members.data(), n, final.data());
    return final;
  }
  const std::vector<int64_t> begin = nms::split_by_group(members, groups);
  const int64_t group_count = std::max<int64_t>(static_cast<int64_t>(begin.size()) - 1, 0);
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t, int64_t) {
    Decayer<T> decayer(boxes, scores, decay, method);
    for (int64_t g; (g = next.fetch_add(1)) < group_count;)
      decayer.run(members.data() + begin[g], begin[g + 1] - begin[g], final.data());
  };
  const int64_t workers = std::min<int64_t>(torch::stable::get_num_threads(), group_count);
  if (workers <= 1 || n < nms::kParallelFrom)
    work(0, 1);
  else
    torch::stable::parallel_for(0, workers, 1, work);
  return final;
}

std::tuple<Tensor, Tensor> soft_nms_cpu(const Tensor& boxes, const Tensor& scores,
                                        const std::optional<Tensor>& groups, double iou_threshold, double sigma,
                                        double min_score, int64_t method_index, int64_t offset) {
  const Method method = check(boxes, scores, groups, iou_threshold, sigma, method_index, offset);
  const Tensor b = as_contiguous(boxes), s = as_contiguous(scores);
  std::optional<Tensor> g;
  if (groups) g = as_contiguous(*groups);
  Tensor dets, keep;
  dispatch_float(b.scalar_type(), "soft_nms", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const T *bp = b.const_data_ptr<T>(), *sp = s.const_data_ptr<T>();
    const Decay<A> decay{A(iou_threshold), A(sigma), A(min_score), A(offset)};
    const std::vector<A> final =
        final_scores(bp, sp, g ? g->const_data_ptr<int64_t>() : nullptr, b.size(0), decay, method);
    std::vector<int32_t> order = nms::order_by_score<A>(final.data(), b.size(0), 0);
    const auto end = std::find_if(order.begin(), order.end(),
                                  [&](int32_t i) { return final[i] == -std::numeric_limits<A>::infinity(); });
    order.erase(end, order.end());
    const int64_t k = static_cast<int64_t>(order.size());
    std::tie(dets, keep) = nms::results<4>(b, bp, sp, order);
    T* dp = dets.mutable_data_ptr<T>();
    for (int64_t i = 0; i < k; ++i) dp[5 * i + 4] = static_cast<T>(final[order[i]]);
  });
  return {std::move(dets), std::move(keep)};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("soft_nms(Tensor boxes, Tensor scores, Tensor? groups, float iou_threshold, float sigma, float min_score, "
        "int method, int offset) -> (Tensor dets, Tensor keep)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("soft_nms", CV_BOX(&soft_nms_cpu)); }

}  // namespace cv::soft_nms
