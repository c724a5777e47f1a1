#pragma once
// What the CPU and the CUDA entry of nms_match share. Both first find for each box its group: the position in
// `keep` (what nms kept, best first) of the box itself, or of the first that suppresses it.

#include <limits>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/sort.h"

namespace cv::nms_match {

inline void check(const Tensor& boxes, const Tensor& scores, const Tensor& keep) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, "nms_match: boxes must be [N, 4]");
  STD_TORCH_CHECK(scores.dim() == 1 && scores.size(0) == boxes.size(0), "nms_match: scores must be [N]");
  STD_TORCH_CHECK(scores.scalar_type() == boxes.scalar_type(), "nms_match: boxes and scores must share a dtype");
  STD_TORCH_CHECK(keep.dim() == 1 && keep.size(0) <= boxes.size(0), "nms_match: keep must be [K], K <= N");
  STD_TORCH_CHECK(keep.scalar_type() == ScalarType::Long, "nms_match: keep must be int64");
  STD_TORCH_CHECK(on_same_device(boxes, keep), "nms_match: boxes and keep must be on one device");
  STD_TORCH_CHECK(on_same_device(boxes, scores), "nms_match: boxes and scores must be on one device");
  STD_TORCH_CHECK(boxes.size(0) < std::numeric_limits<int32_t>::max(), "nms_match: more than 2^31 boxes");
}

// Boxes by group and within it by score, and how many each of k groups has; all on the CPU. A group outside [0, k)
// is refused: boxes that nms did not keep are in a group, unless `keep` came from elsewhere.
template <typename T>
std::tuple<Tensor, Tensor> members_of(const Tensor& group, const T* scores, int64_t k) {
  using A = opmath_t<T>;
  const int64_t n = group.size(0), *at = group.const_data_ptr<int64_t>();
  Tensor members = empty_beside(group, {n}, ScalarType::Long), sizes = empty_beside(group, {k}, ScalarType::Long);
  int64_t *to = members.mutable_data_ptr<int64_t>(), *size = sizes.mutable_data_ptr<int64_t>();
  std::vector<decltype(descending_key(A(0)))> keys(n);
  std::vector<int32_t> order(n);
  std::vector<int64_t> next(k);
  std::fill_n(size, k, int64_t{0});
  for (int64_t i = 0; i < n; ++i) {
    STD_TORCH_CHECK(at[i] >= 0 && at[i] < k, "nms_match: box ", i, " overlaps none of keep");
    ++size[at[i]];
    order[i] = static_cast<int32_t>(i);
    keys[i] = descending_key(static_cast<A>(scores[i]));
  }
  stable_sort_by_key(order, keys);
  for (int64_t g = 1; g < k; ++g) next[g] = next[g - 1] + size[g - 1];
  for (const int32_t i : order) to[next[at[i]]++] = i;
  return {std::move(members), std::move(sizes)};
}

}  // namespace cv::nms_match
