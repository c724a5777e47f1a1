// pixel_group on the CPU, and its schema. Pixel aggregation (Wang et al., 2019): from the contour of each kernel
// its label spreads over pixels of the text mask whose embedding is near the mean embedding of the kernel.

#include <tuple>
#include <vector>

#include "../common/flood.h"
#include "../common/torch_stable.h"

namespace cv::pixel_group {
namespace {

constexpr int64_t kMostRegions = int64_t{1} << 24;  // memory grows with them

// (regions, channels): the mean embedding of each kernel; in double, the sums are long.
std::vector<double> mean_embeddings(const float* embedding, int64_t channels, const int32_t* label, int64_t pixels,
                                    int64_t regions) {
  std::vector<double> mean(regions * channels, 0.0);
  std::vector<int64_t> count(regions, 0);
  for (int64_t p = 0; p < pixels; ++p) {
    if (label[p] <= 0) continue;
    double* sum = &mean[label[p] * channels];
    for (int64_t c = 0; c < channels; ++c) sum[c] += embedding[p * channels + c];
    ++count[label[p]];
  }
  for (int64_t r = 0; r < regions; ++r)
    for (int64_t c = 0; c < channels && count[r] > 0; ++c) mean[r * channels + c] /= static_cast<double>(count[r]);
  return mean;
}

// (score, count, x, y, x, y, ...) of one label after the other, and where each begins, and the end.
std::tuple<Tensor, Tensor> instances(const LabelMap& labels, const Tensor& score, int64_t width, int64_t regions) {
  const float* sp = score.const_data_ptr<float>();
  const Tensor offsets = empty_beside(score, {regions + 1}, ScalarType::Long);
  int64_t* begin = offsets.mutable_data_ptr<int64_t>();
  std::vector<int64_t> count(regions, 0);
  std::vector<double> sum(regions, 0.0);
  labels.each([&](int64_t i, int64_t p) {
    if (labels[i] == 0) return;
    ++count[labels[i]];
    sum[labels[i]] += sp[p];
  });
  begin[0] = 0;
  for (int64_t r = 0; r < regions; ++r) begin[r + 1] = begin[r] + 2 + 2 * count[r];
  const Tensor values = empty_beside(score, {begin[regions]}, ScalarType::Float);
  float* out = values.mutable_data_ptr<float>();
  std::vector<float*> next(regions);
  for (int64_t r = 0; r < regions; ++r) {
    next[r] = out + begin[r];
    *next[r]++ = count[r] > 0 ? static_cast<float>(sum[r] / static_cast<double>(count[r])) : 0.0f;
    *next[r]++ = static_cast<float>(count[r]);
  }
  labels.each([&](int64_t i, int64_t p) {
    if (labels[i] == 0) return;
    float*& to = next[labels[i]];
    *to++ = static_cast<float>(p % width);
    *to++ = static_cast<float>(p / width);
  });
  return {values, offsets};
}

std::tuple<Tensor, Tensor> pixel_group_cpu(const Tensor& score, const Tensor& mask, const Tensor& embedding,
                                           const Tensor& kernel_label, const Tensor& kernel_contour,
                                           int64_t kernel_region_num, double distance_threshold) {
  STD_TORCH_CHECK(embedding.dim() == 3 && embedding.scalar_type() == ScalarType::Float,
                  "pixel_group: embedding must be [H, W, C], float32");
  const int64_t height = embedding.size(0), width = embedding.size(1), channels = embedding.size(2);
  const auto is_map = [&](const Tensor& t, ScalarType dtype) {
    return t.dim() == 2 && t.size(0) == height && t.size(1) == width && t.scalar_type() == dtype;
  };
  STD_TORCH_CHECK(is_map(score, ScalarType::Float), "pixel_group: score must be [H, W], float32");
  STD_TORCH_CHECK(is_map(mask, ScalarType::Byte), "pixel_group: mask must be [H, W], uint8");
  STD_TORCH_CHECK(is_map(kernel_contour, ScalarType::Byte), "pixel_group: kernel_contour must be [H, W], uint8");
  STD_TORCH_CHECK(is_map(kernel_label, ScalarType::Int), "pixel_group: kernel_label must be [H, W], int32");
  STD_TORCH_CHECK(kernel_region_num >= 0 && kernel_region_num <= kMostRegions,
                  "pixel_group: kernel_region_num must not be negative, and at most 2^24");
  const Tensor m = as_contiguous(mask), e = as_contiguous(embedding), l = as_contiguous(kernel_label);
  const Tensor contour = as_contiguous(kernel_contour), s = as_contiguous(score);
  const uint8_t *mp = m.const_data_ptr<uint8_t>(), *cp = contour.const_data_ptr<uint8_t>();
  const float* ep = e.const_data_ptr<float>();
  const int32_t* lp = l.const_data_ptr<int32_t>();
  for (int64_t p = 0; p < height * width; ++p)
    STD_TORCH_CHECK(lp[p] < kernel_region_num || lp[p] <= 0, "pixel_group: kernel_label has the label ", lp[p],
                    ", kernel_region_num is ", kernel_region_num);

  const std::vector<double> mean = mean_embeddings(ep, channels, lp, height * width, kernel_region_num);
  LabelMap labels(height, width);
  std::vector<int64_t> pixel(labels.size(), -1), queue;  // the pixel of the image where the mask is; -1 elsewhere
  labels.each([&](int64_t i, int64_t p) {
    labels[i] = lp[p] > 0 ? lp[p] : 0;
    if (mp[p] != 0) pixel[i] = p;
    if (labels[i] != 0 && cp[p] != 0) queue.push_back(i);
  });
  const double limit = distance_threshold > 0 ? distance_threshold * distance_threshold : 0;
  labels.spread(queue, [&](int64_t from, int64_t to) {
    if (pixel[to] < 0) return false;
    const float* here = ep + pixel[to] * channels;
    const double* centre = &mean[labels[from] * channels];
    double distance = 0;
    for (int64_t c = 0; c < channels; ++c) distance += (here[c] - centre[c]) * (here[c] - centre[c]);
    return distance < limit;
  });
  return instances(labels, s, width, kernel_region_num);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("pixel_group(Tensor score, Tensor mask, Tensor embedding, Tensor kernel_label, Tensor kernel_contour, "
        "int kernel_region_num, float distance_threshold) -> (Tensor values, Tensor offsets)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("pixel_group", TORCH_BOX(&pixel_group_cpu)); }

}  // namespace cv::pixel_group
