// contour_expand on the CPU, and its schema. Progressive scale expansion (Wang et al., 2019): the labels of the
// smallest kernels spread over each kernel mask in turn, from the smallest to the largest, first come first served.

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "../common/flood.h"
#include "../common/torch_stable.h"

namespace cv::contour_expand {
namespace {

// Labels with fewer than min_area pixels become 0.
void drop_small(LabelMap& labels, int64_t min_area) {
  std::unordered_map<int32_t, int64_t> area;  // labels may be any numbers
  int32_t last = 0;
  int64_t* count = nullptr;
  labels.each([&](int64_t i, int64_t) {
    if (labels[i] == 0) return;
    if (labels[i] != last || count == nullptr) last = labels[i], count = &area[last];
    ++*count;
  });
  last = 0;
  bool small = false;
  labels.each([&](int64_t i, int64_t) {
    if (labels[i] == 0) return;
    if (labels[i] != last) last = labels[i], small = area[last] < min_area;
    if (small) labels[i] = 0;
  });
}

bool on_edge(const LabelMap& labels, int64_t i) {
  const int64_t s = labels.stride();
  return labels[i - s] == 0 || labels[i - 1] == 0 || labels[i + 1] == 0 || labels[i + s] == 0;
}

// Spreading over mask k + 1 goes on from the pixels that may still have free neighbours: those on the edge.
void keep_edge(const LabelMap& labels, std::vector<int64_t>& pixels) {
  const auto inside = [&](int64_t i) { return !on_edge(labels, i); };
  pixels.erase(std::remove_if(pixels.begin(), pixels.end(), inside), pixels.end());
}

Tensor contour_expand_cpu(const Tensor& kernel_masks, const Tensor& kernel_label, int64_t min_kernel_area) {
  STD_TORCH_CHECK(kernel_masks.dim() == 3 && kernel_masks.scalar_type() == ScalarType::Byte,
                  "contour_expand: kernel_mask must be [K, H, W], uint8");
  STD_TORCH_CHECK(kernel_label.dim() == 2 && kernel_label.scalar_type() == ScalarType::Int,
                  "contour_expand: internal_kernel_label must be [H, W], int32");
  const int64_t count = kernel_masks.size(0), height = kernel_masks.size(1), width = kernel_masks.size(2);
  STD_TORCH_CHECK(kernel_label.size(0) == height && kernel_label.size(1) == width,
                  "contour_expand: masks and labels must have one size");
  const Tensor m = as_contiguous(kernel_masks), l = as_contiguous(kernel_label);
  const Tensor out = empty_beside(l, {height, width}, ScalarType::Int);
  const uint8_t* masks = m.const_data_ptr<uint8_t>();
  const int32_t* given = l.const_data_ptr<int32_t>();
  int32_t* result = out.mutable_data_ptr<int32_t>();

  LabelMap labels(height, width);
  labels.each([&](int64_t i, int64_t p) { labels[i] = given[p] > 0 ? given[p] : 0; });
  if (min_kernel_area > 1) drop_small(labels, min_kernel_area);
  std::vector<int64_t> queue;
  labels.each([&](int64_t i, int64_t) {
    if (labels[i] != 0 && on_edge(labels, i)) queue.push_back(i);
  });
  std::vector<uint8_t> mask(labels.size(), 0);
  for (int64_t k = count - 1; k >= 0; --k) {
    const uint8_t* source = masks + k * height * width;
    for (int64_t y = 0; y < height; ++y) std::copy_n(source + y * width, width, &mask[labels.at(y, 0)]);
    keep_edge(labels, queue);
    labels.spread(queue, [&](int64_t, int64_t to) { return mask[to] != 0; });
  }
  labels.each([&](int64_t i, int64_t p) { result[p] = labels[i]; });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("contour_expand(Tensor kernel_masks, Tensor kernel_label, int min_kernel_area) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("contour_expand", CV_BOX(&contour_expand_cpu)); }

}  // namespace cv::contour_expand
