#pragma once
// Kept boxes, asked for each candidate: does one of them suppress it? Two containers with one question.
//
// KeptList is a plain list, tested 16 boxes at a time. KeptTree is a bounding-box tree of fan-out 16 over
// *all* boxes of the call, laid out once in Morton order and empty at first; keeping a box fills in its
// leaf slot and widens its ancestors. A candidate then meets only the kept boxes near it, whatever the
// sizes and the threshold, and where everything overlaps everything the tree costs little more than the list.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "../common/sort.h"
#include "nms.h"

namespace cv::nms {

constexpr int kLanes = 16;

// Boxes as six arrays, in multiples of 16, the unused slots filled with an empty box.
template <typename A>
struct Boxes {
  A *x1 = nullptr, *y1 = nullptr, *x2 = nullptr, *y2 = nullptr, *area = nullptr, *small = nullptr;

  Boxes() = default;
  Boxes(Boxes&&) = default;  // a copy would point into the original
  Boxes& operator=(Boxes&&) = default;

  void reset(int64_t n) {  // n empty boxes, rounded up
    const size_t padded = static_cast<size_t>((n + kLanes - 1) / kLanes * kLanes);
    constexpr A inf = std::numeric_limits<A>::infinity();
    memory_.resize(6 * padded);
    A* next = memory_.data();
    const std::pair<A**, A> arrays[] = {{&x1, inf}, {&y1, inf}, {&x2, -inf}, {&y2, -inf}, {&area, A(0)}, {&small, inf}};
    for (const auto& [array, value] : arrays) {
      *array = next;
      next = std::fill_n(next, padded, value);
    }
  }
  size_t slots() const { return memory_.size() / 6; }
  void set(int64_t i, const Box<A>& b) {
    x1[i] = b.x1;
    y1[i] = b.y1;
    x2[i] = b.x2;
    y2[i] = b.y2;
    area[i] = b.area;
  }
  Box<A> get(int64_t i) const { return {x1[i], y1[i], x2[i], y2[i], area[i]}; }
  // As a node of the tree: bounds of its boxes. `area` is then the largest, `small` the smallest area.
  void widen(int64_t i, const Box<A>& b) {
    area[i] = larger(area[i], b.area);
    small[i] = smaller(small[i], b.area);
    x1[i] = smaller(x1[i], b.x1);
    y1[i] = smaller(y1[i], b.y1);
    x2[i] = larger(x2[i], b.x2);
    y2[i] = larger(y2[i], b.y2);
  }

 private:
  std::vector<A> memory_;
};

// Whether one of the 16 boxes from `first` on suppresses `b`.
template <typename A>
inline bool any_suppresses(const Boxes<A>& boxes, int64_t first, const Box<A>& b, A offset, A threshold) {
  const A *x1 = &boxes.x1[first], *y1 = &boxes.y1[first], *x2 = &boxes.x2[first], *y2 = &boxes.y2[first];
  const A* area = &boxes.area[first];
  int any = 0;
  for (int i = 0; i < kLanes; ++i)
    any |= static_cast<int>(iou_exceeds(b, x1[i], y1[i], x2[i], y2[i], area[i], offset, threshold));
  return any != 0;
}

// Bit i: whether the i-th of the 16 nodes from `first` on may hold a box that suppresses `b`. For each of
// its boxes the intersection is at most that of the node with b, and at most the node's largest area; the
// union is at least b's area and at least the node's smallest. `threshold` is a little below the true one.
template <typename A>
inline uint32_t may_suppress(const Boxes<A>& nodes, int64_t first, const Box<A>& b, A offset, A threshold) {
  const A *x1 = &nodes.x1[first], *y1 = &nodes.y1[first], *x2 = &nodes.x2[first], *y2 = &nodes.y2[first];
  const A *largest = &nodes.area[first], *smallest = &nodes.small[first];
  // A table instead of 1u << i: baseline x86 has no shift by a different count per lane.
  static constexpr uint32_t bit[kLanes] = {0x1,   0x2,   0x4,   0x8,   0x10,   0x20,   0x40,   0x80,
                                           0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x4000, 0x8000};
  uint32_t mask = 0;
  for (int i = 0; i < kLanes; ++i) {
    const A w = overlap_side(x1[i], x2[i], b.x1, b.x2, offset), h = overlap_side(y1[i], y2[i], b.y1, b.y2, offset);
    const A inter = w * h;
    mask |= smaller(inter, largest[i]) > threshold * larger(b.area, smallest[i]) ? bit[i] : 0u;
  }
  return mask;
}

// Indices of the first n boxes along a Morton curve through their centres: near ones lie near.
template <typename A>
std::vector<int32_t> morton_order(const Boxes<A>& all, int64_t n) {
  constexpr int32_t cells = 2048;
  constexpr A inf = std::numeric_limits<A>::infinity();
  // Sums of huge coordinates may overflow to infinity and their scaled value to NaN: any cell will do.
  const auto cell = [](A v) { return v > A(0) ? v < A(cells - 1) ? static_cast<uint32_t>(v) : cells - 1 : 0u; };
  const auto spread_bits = [](uint32_t v) {  // 11 bits with a zero between each two: half of a code
    v = (v | v << 8) & 0x00ff00ff;
    v = (v | v << 4) & 0x0f0f0f0f;
    v = (v | v << 2) & 0x33333333;
    return (v | v << 1) & 0x55555555;
  };
  A xlo = inf, ylo = inf, xhi = -inf, yhi = -inf;  // of the centres (doubled) of boxes that take part
  for (int64_t i = 0; i < n; ++i) {
    if (!(all.area[i] > A(0))) continue;
    const A x = all.x1[i] + all.x2[i], y = all.y1[i] + all.y2[i];
    xlo = smaller(xlo, x), xhi = larger(xhi, x), ylo = smaller(ylo, y), yhi = larger(yhi, y);
  }
  const A xscale = xhi > xlo ? A(cells - 1) / (xhi - xlo) : A(0);
  const A yscale = yhi > ylo ? A(cells - 1) / (yhi - ylo) : A(0);
  std::vector<uint32_t> codes(n, 0);  // a box that takes no part may be anywhere
  std::vector<int32_t> order(n);
  for (int64_t i = 0; i < n; ++i) {
    order[i] = static_cast<int32_t>(i);
    if (!(all.area[i] > A(0))) continue;
    const A x = (all.x1[i] + all.x2[i] - xlo) * xscale, y = (all.y1[i] + all.y2[i] - ylo) * yscale;
    codes[i] = spread_bits(cell(x)) | spread_bits(cell(y)) << 1;
  }
  stable_sort_by_key(order, codes, static_cast<uint32_t>(cells) * cells - 1);
  return order;
}

template <typename A>
class KeptList {
 public:
  KeptList(A offset, A threshold) : offset_(offset), threshold_(threshold) {}

  void reset(int64_t capacity) {
    boxes_.reset(capacity);
    count_ = 0;
  }
  void keep(const Box<A>& b) { boxes_.set(count_++, b); }
  bool suppresses(const Box<A>& b) const {
    for (int64_t i = 0; i < count_; i += kLanes)
      if (any_suppresses(boxes_, i, b, offset_, threshold_)) return true;
    return false;
  }

 private:
  A offset_, threshold_;
  Boxes<A> boxes_;
  int64_t count_ = 0;
};

template <typename A>
class KeptTree {
 public:
  KeptTree(A offset, A threshold)
      : offset_(offset), threshold_(threshold),
        low_threshold_(threshold * (A(1) - 32 * std::numeric_limits<A>::epsilon())) {}  // rounding of the bound

  // Lays the tree out for the first n of `all`.
  void reset(const Boxes<A>& all, int64_t n) {
    order_ = morton_order(all, n);
    slot_.resize(n);
    for (int64_t i = 0; i < n; ++i) slot_[order_[i]] = static_cast<int32_t>(i);
    levels_.clear();
    for (int64_t size = n;; size = (size + kLanes - 1) / kLanes) {
      levels_.emplace_back().reset(size);
      if (size <= kLanes) break;
    }
  }

  // i: the index of `b` in `all`.
  void keep(int64_t i, const Box<A>& b) {
    int64_t slot = slot_[i];
    levels_[0].widen(slot, b);  // from the empty box
    for (size_t level = 1; level < levels_.size(); ++level) levels_[level].widen(slot /= kLanes, b);
  }

  bool suppresses(const Box<A>& b) const {
    return any_group(b, [&](int64_t first) { return any_suppresses(levels_[0], first, b, offset_, threshold_); });
  }

  // The same question where boxes are only bounds of other shapes (with those shapes' areas): asks
  // `decide(i)` about each kept box i whose IoU with `b` may exceed the threshold, until it says yes.
  template <typename Decide>
  bool any_near(const Box<A>& b, Decide&& decide) const {
    return any_group(b, [&](int64_t first) {
      for (uint32_t mask = may_suppress(levels_[0], first, b, offset_, low_threshold_); mask != 0; mask &= mask - 1)
        if (decide(order_[first + __builtin_ctz(mask)])) return true;
      return false;
    });
  }

 private:
  static constexpr int kMaxLevels = 8;  // 16^8 slots, more than 32-bit indices can name

  // Whether `leaf(first)` holds for one of the groups of 16 slots that may suppress `b`.
  template <typename Leaf>
  bool any_group(const Box<A>& b, Leaf&& leaf) const {
    struct Group {
      int32_t level;
      int64_t first;
    };
    Group stack[kLanes * kMaxLevels];
    int depth = 0;
    stack[depth++] = {static_cast<int32_t>(levels_.size()) - 1, 0};
    while (depth > 0) {
      const Group g = stack[--depth];
      if (g.level == 0) {
        if (leaf(g.first)) return true;
        continue;
      }
      for (uint32_t mask = may_suppress(levels_[g.level], g.first, b, offset_, low_threshold_); mask != 0; mask &= mask - 1)
        stack[depth++] = {g.level - 1, (g.first + __builtin_ctz(mask)) * kLanes};
    }
    return false;
  }

  A offset_, threshold_, low_threshold_;
  std::vector<Boxes<A>> levels_;  // 0: the boxes; each next one bounds 16 of the one below
  std::vector<int32_t> slot_, order_;
};

}  // namespace cv::nms
