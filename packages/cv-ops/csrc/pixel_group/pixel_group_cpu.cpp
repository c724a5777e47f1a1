// pixel_group on the CPU, and its schema. Pixel aggregation (Wang et al., 2019): from the contour of each kernel
// its label spreads over pixels of the text mask whose embedding is near the mean embedding of the kernel.
//
// The map of states has a border that nothing enters, so a step needs no bounds check; labels, joined or not, are in
// it with the mask, and rows are read and written in runs of one label.

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../common/isa.h"
#include "../common/macros.h"
#include "../common/torch_stable.h"

namespace cv::pixel_group {
namespace {

constexpr int64_t kMostRegions = int64_t{1} << 24;  // memory grows with them
constexpr int32_t kFree = 0, kClosed = -1;          // states of a pixel; positive: its label

struct Pixel {
  int64_t state, at;  // in the map of states, in the image
};

// What is known of each label while labels spread; sums are in double, they are long.
struct Regions {
  int64_t channels;
  std::vector<int64_t> count;  // of pixels
  std::vector<double> mean;    // (regions, channels): of the kernel's embeddings

  Regions(int64_t regions, int64_t channels) : channels(channels), count(regions, 0), mean(regions * channels, 0.0) {}
};

struct States {
  int64_t height, width, stride;
  std::vector<int32_t> cells;

  States(int64_t height, int64_t width)
      : height(height), width(width), stride(width + 2), cells((height + 2) * stride, kClosed) {}

  int32_t* row(int64_t y) { return &cells[(y + 1) * stride + 1]; }
};

inline int32_t largest_label(const int32_t* labels, int64_t n) {
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = labels[i] > largest ? labels[i] : largest;
  return largest;
}

// The first of n pixels that has a label; n if none has.
inline int64_t first_label(const int32_t* labels, int64_t n) {
  constexpr int64_t kBlock = 32;
  int64_t i = 0;
  while (i + kBlock <= n && largest_label(labels + i, kBlock) == 0) i += kBlock;
  while (i < n && labels[i] <= 0) ++i;
  return i;
}

inline int64_t run_length(const int32_t* labels, int64_t most) {
  int64_t n = 1;
  while (n < most && labels[n] == labels[0]) ++n;
  return n;
}

// Sums of n embeddings; kChannels is 0 where their number is not known when compiling.
template <int64_t kChannels>
inline void add_embeddings(const float* CV_RESTRICT embedding, int64_t n, int64_t channels, double* CV_RESTRICT sum) {
  if constexpr (kChannels > 0) {
    double s[kChannels] = {};
    for (int64_t i = 0; i < n; ++i)
      for (int64_t c = 0; c < kChannels; ++c) s[c] += embedding[i * kChannels + c];
    for (int64_t c = 0; c < kChannels; ++c) sum[c] += s[c];
  } else {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t c = 0; c < channels; ++c) sum[c] += embedding[i * channels + c];
  }
}

template <int64_t kChannels>
inline double distance_squared(const float* CV_RESTRICT a, const double* CV_RESTRICT b, int64_t channels) {
  double distance = 0;
  for (int64_t c = 0; c < (kChannels > 0 ? kChannels : channels); ++c) distance += (a[c] - b[c]) * (a[c] - b[c]);
  return distance;
}

inline void to_states(const int32_t* CV_RESTRICT label, const uint8_t* CV_RESTRICT mask, int64_t n,
                      int32_t* CV_RESTRICT to) {
  for (int64_t x = 0; x < n; ++x) {
    const int32_t other = mask[x] != 0 ? kFree : kClosed;
    to[x] = label[x] > 0 ? label[x] : other;
  }
}

// edge[x]: whether label x, on the contour, has a neighbour that is free
inline void find_edge(const int32_t* CV_RESTRICT row, int64_t stride, const uint8_t* CV_RESTRICT contour, int64_t n,
                      uint8_t* CV_RESTRICT edge) {
  for (int64_t x = 0; x < n; ++x) {
    const bool beside_free = (row[x - stride] == kFree) | (row[x - 1] == kFree) | (row[x + 1] == kFree) |
                             (row[x + stride] == kFree);
    edge[x] = (row[x] > 0) & (contour[x] != 0) & beside_free;
  }
}

// States, counts and mean embeddings of the kernels.
template <int64_t kChannels>
inline void read_kernels(const int32_t* label, const uint8_t* mask, const float* embedding, States& states,
                         Regions& regions) {
  for (int64_t y = 0; y < states.height; ++y) {
    int32_t* row = states.row(y);
    const int64_t first = y * states.width;
    to_states(label + first, mask + first, states.width, row);
    for (int64_t x = 0, n; (x += first_label(row + x, states.width - x)) < states.width; x += n) {
      n = run_length(row + x, states.width - x);
      regions.count[row[x]] += n;
      double* sum = &regions.mean[row[x] * regions.channels];
      add_embeddings<kChannels>(embedding + (first + x) * regions.channels, n, regions.channels, sum);
    }
  }
  for (std::size_t r = 0; r < regions.count.size(); ++r)
    for (int64_t c = 0; c < regions.channels && regions.count[r] > 0; ++c)
      regions.mean[r * regions.channels + c] /= static_cast<double>(regions.count[r]);
}

// What spreads first: pixels on contours, in reading order; those that no free one is beside are left out.
inline std::vector<Pixel> first_ring(const uint8_t* contour, States& states) {
  std::vector<Pixel> ring;
  std::vector<uint8_t> edge(states.width);
  for (int64_t y = 0; y < states.height; ++y) {
    const int32_t* row = states.row(y);
    find_edge(row, states.stride, contour + y * states.width, states.width, edge.data());
    const uint8_t* end = edge.data() + states.width;
    for (const uint8_t* at = edge.data(); (at = std::find(at, end, 1)) != end; ++at) {
      const int64_t x = at - edge.data();
      ring.push_back({row + x - states.cells.data(), y * states.width + x});
    }
  }
  return ring;
}

// Ring by ring, in the order of the ring before; neighbours above, left, right, below. That is the order of a queue,
// and the same result in every run.
template <int64_t kChannels>
inline void spread(std::vector<Pixel> ring, const float* embedding, double limit, States& states, Regions& regions) {
  const int64_t channels = kChannels > 0 ? kChannels : regions.channels;
  int32_t* cells = states.cells.data();
  const Pixel steps[4] = {{-states.stride, -states.width}, {-1, -1}, {1, 1}, {states.stride, states.width}};
  for (std::vector<Pixel> next; !ring.empty(); ring.swap(next), next.clear()) {
    for (const Pixel& from : ring) {
      const int32_t label = cells[from.state];
      const double* centre = &regions.mean[label * channels];
      for (const Pixel& step : steps) {
        const Pixel to{from.state + step.state, from.at + step.at};
        if (cells[to.state] != kFree) continue;
        if (!(distance_squared<kChannels>(embedding + to.at * channels, centre, channels) < limit)) continue;
        cells[to.state] = label;
        ++regions.count[label];
        next.push_back(to);
      }
    }
  }
}

// (x, y) of n pixels of a row from x on
inline void coordinates(int64_t x, int64_t y, int64_t n, int32_t* CV_RESTRICT to) {
  for (int64_t i = 0; i < n; ++i) {
    to[2 * i] = static_cast<int32_t>(x + i);
    to[2 * i + 1] = static_cast<int32_t>(y);
  }
}

// Of each label the mean score; (x, y, x, y, ...), one label after the other, and where each begins, and the end.
inline std::tuple<Tensor, Tensor, Tensor> groups(States& states, const Regions& regions, const Tensor& score) {
  const float* sp = score.const_data_ptr<float>();
  const int64_t count = static_cast<int64_t>(regions.count.size());
  const Tensor means = empty_beside(score, {count}, ScalarType::Float);
  const Tensor offsets = empty_beside(score, {count + 1}, ScalarType::Long);
  int64_t* begin = offsets.mutable_data_ptr<int64_t>();
  begin[0] = 0;
  for (int64_t r = 0; r < count; ++r) begin[r + 1] = begin[r] + 2 * regions.count[r];
  const Tensor pixels = empty_beside(score, {begin[count]}, ScalarType::Int);
  int32_t* out = pixels.mutable_data_ptr<int32_t>();
  std::vector<int32_t*> next(count);
  std::vector<double> sum(count, 0.0);
  for (int64_t r = 0; r < count; ++r) next[r] = out + begin[r];
  for (int64_t y = 0; y < states.height; ++y) {
    const int32_t* row = states.row(y);
    for (int64_t x = 0, n; (x += first_label(row + x, states.width - x)) < states.width; x += n) {
      n = run_length(row + x, states.width - x);
      coordinates(x, y, n, next[row[x]]);
      next[row[x]] += 2 * n;
      add_embeddings<1>(sp + y * states.width + x, n, 1, &sum[row[x]]);
    }
  }
  float* mean = means.mutable_data_ptr<float>();
  for (int64_t r = 0; r < count; ++r)
    mean[r] = regions.count[r] > 0 ? static_cast<float>(sum[r] / static_cast<double>(regions.count[r])) : 0.0f;
  return {means, pixels, offsets};
}

std::tuple<Tensor, Tensor, Tensor> pixel_group_cpu(const Tensor& score, const Tensor& mask, const Tensor& embedding,
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
  int32_t largest = 0;
  vectorized([&] { largest = largest_label(lp, height * width); });
  STD_TORCH_CHECK(largest < kernel_region_num || largest == 0, "pixel_group: kernel_label has the label ", largest,
                  ", kernel_region_num is ", kernel_region_num);

  const double limit = distance_threshold > 0 ? distance_threshold * distance_threshold : 0;
  States states(largest > 0 ? height : 0, width);  // an image without text is a usual case
  Regions regions(kernel_region_num, channels);
  const auto run = [&](auto known) {
    constexpr int64_t kChannels = decltype(known)::value;
    read_kernels<kChannels>(lp, mp, ep, states, regions);
    spread<kChannels>(first_ring(cp, states), ep, limit, states, regions);
  };
  using Four = std::integral_constant<int64_t, 4>;
  using Any = std::integral_constant<int64_t, 0>;
  vectorized([&] { channels == 4 ? run(Four{}) : run(Any{}); });
  std::tuple<Tensor, Tensor, Tensor> result;
  vectorized([&] { result = groups(states, regions, s); });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("pixel_group(Tensor score, Tensor mask, Tensor embedding, Tensor kernel_label, Tensor kernel_contour, "
        "int kernel_region_num, float distance_threshold) -> (Tensor scores, Tensor pixels, Tensor offsets)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("pixel_group", CV_BOX(&pixel_group_cpu)); }

}  // namespace cv::pixel_group
