#pragma once
// What every greedy suppression on the CPU does around its test of two boxes: the order of the scores, groups
// and their threads, the result.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "../common/sort.h"
#include "../common/torch_stable.h"

namespace cv::nms {

constexpr int64_t kParallelFrom = 4096;  // boxes in all groups; fewer are done before another thread starts

// Indices of the boxes above the score threshold, best first; ties by index.
template <typename A, typename T>
std::vector<int32_t> order_by_score(const T* scores, int64_t n, double score_threshold) {
  using Key = decltype(descending_key(A(0)));
  std::vector<Key> keys(n);
  std::vector<int32_t> order;
  order.reserve(n);
  for (int64_t i = 0; i < n; ++i) {
    const A s = scores[i];
    keys[i] = descending_key(s);
    if (!(score_threshold > 0) || s > A(score_threshold)) order.push_back(static_cast<int32_t>(i));
  }
  stable_sort_by_key(order, keys);
  return order;
}

// Sorts `order` by group, score order kept within each; returns where groups begin, and the end.
inline std::vector<int64_t> split_by_group(std::vector<int32_t>& order, const int64_t* groups) {
  std::vector<int64_t> begin;
  if (order.empty()) return begin;
  int64_t lo = groups[order[0]], hi = lo;
  for (int32_t i : order) lo = std::min(lo, groups[i]), hi = std::max(hi, groups[i]);
  std::vector<uint64_t> keys;
  const int32_t largest = *std::max_element(order.begin(), order.end());
  keys.resize(static_cast<size_t>(largest) + 1);
  for (int32_t i : order) keys[i] = static_cast<uint64_t>(groups[i]) - static_cast<uint64_t>(lo);
  stable_sort_by_key(order, keys, static_cast<uint64_t>(hi) - static_cast<uint64_t>(lo));
  for (size_t i = 0; i < order.size(); ++i)
    if (i == 0 || groups[order[i]] != groups[order[i - 1]]) begin.push_back(static_cast<int64_t>(i));
  begin.push_back(static_cast<int64_t>(order.size()));
  return begin;
}

// The kept of `order` (indices by score, best first), best first; at most max_num if that is positive.
//
// make_suppressor() is called once in each thread. Its result is asked, group by group:
// keep(members, count, limit) gives the positions in `members` of the boxes that stay, `limit` at most.
template <typename MakeSuppressor>
std::vector<int32_t> greedy(const std::vector<int32_t>& order, const int64_t* groups, int64_t max_num,
                            MakeSuppressor&& make_suppressor) {
  const int64_t count = static_cast<int64_t>(order.size());
  const int64_t limit = max_num > 0 ? std::min(max_num, count) : count;
  std::vector<int32_t> kept;
  if (groups == nullptr) {
    auto suppressor = make_suppressor();
    const auto& positions = suppressor.keep(order.data(), count, limit);
    kept.reserve(positions.size());
    for (int32_t i : positions) kept.push_back(order[i]);
    return kept;
  }
  if (order.empty()) return kept;
  std::vector<int32_t> by_group = order;
  const std::vector<int64_t> begin = split_by_group(by_group, groups);
  std::vector<uint8_t> is_kept(static_cast<size_t>(*std::max_element(order.begin(), order.end())) + 1, 0);
  // Threads take the next group when they are done with one: classes differ much in size.
  const int64_t group_count = static_cast<int64_t>(begin.size()) - 1;
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t, int64_t) {
    auto suppressor = make_suppressor();
    for (int64_t g; (g = next.fetch_add(1)) < group_count;) {
      const int32_t* members = by_group.data() + begin[g];
      for (int32_t i : suppressor.keep(members, begin[g + 1] - begin[g], limit)) is_kept[members[i]] = 1;
    }
  };
  const int64_t workers = std::min<int64_t>(torch::stable::get_num_threads(), group_count);
  if (workers <= 1 || count < kParallelFrom)
    work(0, 1);
  else
    torch::stable::parallel_for(0, workers, 1, work);
  for (int32_t i : order) {
    if (static_cast<int64_t>(kept.size()) == limit) break;
    if (is_kept[i]) kept.push_back(i);
  }
  return kept;
}

// dets: the kept boxes of W numbers with their scores; keep: their indices.
template <int W, typename T>
std::tuple<Tensor, Tensor> results(const Tensor& like, const T* boxes, const T* scores,
                                   const std::vector<int32_t>& kept) {
  const int64_t k = static_cast<int64_t>(kept.size());
  Tensor dets = empty_beside(like, {k, W + 1}, like.scalar_type());
  Tensor keep = empty_beside(like, {k}, ScalarType::Long);
  T* dp = dets.mutable_data_ptr<T>();
  int64_t* kp = keep.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < k; ++i) {
    kp[i] = kept[i];
    std::memcpy(dp + (W + 1) * i, boxes + int64_t{W} * kept[i], W * sizeof(T));
    dp[(W + 1) * i + W] = scores[kept[i]];
  }
  return {std::move(dets), std::move(keep)};
}

}  // namespace cv::nms
