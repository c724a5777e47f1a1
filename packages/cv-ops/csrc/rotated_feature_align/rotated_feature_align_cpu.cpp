// rotated_feature_align on the CPU, and its schema. Maps are read as (N, H, W, C) and loops run over channels.
//
// Everything is deterministic, on any number of threads: an element of the gradient belongs to one task, which goes
// through the pixels in their order.

#include <algorithm>
#include <limits>

#include "../common/isa.h"
#include "../common/roi_cpu.h"
#include "rotated_feature_align_args.h"

namespace cv::rotated_feature_align {
namespace {

using torch::stable::parallel_for;

// What one pixel's points read: up to 4 pixels each, as offsets into an image of `channels`.
template <typename T>
struct Reads {
  int64_t at[20];
  T weight[20];
  int count;

  Reads(const Points<T>& points, const Params& p) : count(0) {
    for (int64_t k = 0; k < p.points; ++k) {
      Tap<T> y, x;
      if (!points.tap(k, p, y, x)) continue;
      add(y.low, x.low, y.weight_low * x.weight_low, p);
      add(y.low, x.high, y.weight_low * x.weight_high, p);
      add(y.high, x.low, y.weight_high * x.weight_low, p);
      add(y.high, x.high, y.weight_high * x.weight_high, p);
    }
  }

  void add(int64_t row, int64_t column, T w, const Params& p) {
    at[count] = (row * p.width + column) * p.channels, weight[count++] = w;
  }
};

template <typename T>
inline void add_scaled(const T* CV_RESTRICT from, T weight, int64_t n, T* CV_RESTRICT to) {
  for (int64_t c = 0; c < n; ++c) to[c] += weight * from[c];
}

template <typename T>
inline void align_pixels(const T* x, const T* boxes, const Params p, int64_t begin, int64_t end, T* out) {
  for (int64_t i = begin; i < end; ++i) {
    const Points<T> points = make_points(boxes + 5 * i, p);
    T* to = out + i * p.channels;
    if (!points.finite) {
      std::fill_n(to, p.channels, std::numeric_limits<T>::quiet_NaN());
      continue;
    }
    const T* image = x + i / p.plane() * p.plane() * p.channels;
    std::copy_n(x + i * p.channels, p.channels, to);
    const Reads<T> reads(points, p);
    for (int k = 0; k < reads.count; ++k) add_scaled(image + reads.at[k], reads.weight[k], p.channels, to);
  }
}

// x and out (N, H, W, C)
template <typename T>
void align(const T* x, const T* boxes, const Params& p, T* out) {
  const int64_t pixels = p.batch * p.plane();
  parallel_for(0, pixels, grain_for(4 * p.points * (p.channels + 10)), [&](int64_t begin, int64_t end) {
    vectorized([&] { align_pixels(x, boxes, p, begin, end, out); });
  });
}

// `count` channels of an image, from the pointers on.
template <typename T>
inline void spread_pixels(const T* from, const T* boxes, const Params p, int64_t count, T* to) {
  for (int64_t i = 0; i < p.plane(); ++i) std::copy_n(from + i * p.channels, count, to + i * p.channels);
  for (int64_t i = 0; i < p.plane(); ++i) {
    const Points<T> points = make_points(boxes + 5 * i, p);
    if (!points.finite) continue;
    const Reads<T> reads(points, p);
    for (int k = 0; k < reads.count; ++k)
      add_scaled(from + i * p.channels, reads.weight[k], count, to + reads.at[k]);
  }
}

// grad and grad_input (N, H, W, C). A task has some channels of one image.
template <typename T>
void spread(const T* grad, const T* boxes, const Params& p, T* grad_input) {
  const roi::Partition part = roi::Partition::make(p.channels, tag<T>{});
  parallel_for(0, p.batch * part.blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / part.blocks * p.plane(), first = task % part.blocks * part.block;
      const int64_t count = std::min(part.block, p.channels - first);
      const int64_t at = image * p.channels + first;
      vectorized([&] { spread_pixels(grad + at, boxes + 5 * image, p, count, grad_input + at); });
    }
  });
}

// Both passes: a map of the same shape, layout and dtype as the one given.
template <typename F>
Tensor map_of(const Tensor& given, const Params& p, const Tensor& boxes, F&& fill) {
  const ScalarType acc = opmath_dtype(given.scalar_type());
  const Tensor out = empty_4d(given, p.batch, p.channels, p.height, p.width, acc, true), at = box_tensor(boxes, acc);
  dispatch_float_double(acc, "rotated_feature_align", [&](auto t) {
    using T = typename decltype(t)::type;
    if (out.numel() == 0) return;
    const Tensor x = channels_last_cpu<T>(to_opmath(given));
    fill(x.const_data_ptr<T>(), at.const_data_ptr<T>(), out.mutable_data_ptr<T>());
  });
  return roi::hand_back(out, given.scalar_type(), is_channels_last(given));
}

Tensor rotated_feature_align_cpu(const Tensor& features, const Tensor& boxes, double spatial_scale, int64_t points) {
  const Params p = make_params(features, boxes, spatial_scale, points);
  return map_of(features, p, boxes, [&](auto* x, auto* at, auto* out) { align(x, at, p, out); });
}

Tensor rotated_feature_align_backward_cpu(const Tensor& grad, const Tensor& boxes, double spatial_scale,
                                          int64_t points, bool /*deterministic: always so here*/) {
  const Params p = make_params(grad, boxes, spatial_scale, points);
  return map_of(grad, p, boxes, [&](auto* g, auto* at, auto* out) { spread(g, at, p, out); });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("rotated_feature_align(Tensor features, Tensor best_rbboxes, float spatial_scale, int points) -> Tensor");
  m.def("rotated_feature_align_backward(Tensor grad, Tensor best_rbboxes, float spatial_scale, int points,"
        " bool deterministic) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("rotated_feature_align", CV_BOX(&rotated_feature_align_cpu));
  m.impl("rotated_feature_align_backward", CV_BOX(&rotated_feature_align_backward_cpu));
}

}  // namespace cv::rotated_feature_align
