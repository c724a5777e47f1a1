// BorderAlign on the CPU. Maps are read as (N, H, W, 4 C) and loops run over channels, except for few channels and for
// few boxes on a large contiguous map, where turning the map would cost more.
//
// Everything is deterministic, on any number of threads: an element of the gradient belongs to one task, which
// adds box after box.

#include <limits>
#include <tuple>
#include <vector>

#include "../common/isa.h"
#include "../common/roi_cpu.h"
#include "border_align_args.h"

namespace cv::border_align {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kBoxes = 16;  // of one task: whole cache lines of the output

// A contiguous map of so many channels for each border is turned as a whole if boxes read more than this share of its
// values.
constexpr int64_t kRuns = 32;
constexpr double kTurnFrom = 0.5;

// One sample: the offsets of four pixels in the image and their weights.
template <typename T>
struct Sample {
  int64_t at[4];
  T weight[4];
  bool inside;
};

template <typename T>
void sample_border(const Border<T>& border, const Params& p, int64_t pixel_stride, std::vector<Sample<T>>& samples) {
  samples.resize(p.pool_size + 1);
  for (int64_t i = 0; i <= p.pool_size; ++i) {
    Tap<T> y, x;
    Sample<T>& s = samples[i];
    s.inside = border.tap(i, p, y, x);
    if (!s.inside) continue;
    const int64_t above = y.low * p.width, below = y.high * p.width;
    const int64_t pixel[4] = {above + x.low, above + x.high, below + x.low, below + x.high};
    const T weight[4] = {y.weight_low * x.weight_low, y.weight_low * x.weight_high, y.weight_high * x.weight_low,
                         y.weight_high * x.weight_high};
    for (int j = 0; j < 4; ++j) s.at[j] = pixel[j] * pixel_stride, s.weight[j] = weight[j];
  }
}

// Greatest sample and its number, for `Lanes` channels of an image whose pointer starts at the first. The first of
// equal samples counts; NaN is taken, and then kept.
template <typename T, int64_t Lanes>
CV_HD void greatest(const Sample<T>* samples, int32_t count, const T* image, T* CV_RESTRICT out,
                    int32_t* CV_RESTRICT which) {
  T best[Lanes];
  int32_t number[Lanes];
  for (int64_t i = 0; i < Lanes; ++i) best[i] = -std::numeric_limits<T>::infinity(), number[i] = 0;
  for (int32_t s = 0; s < count; ++s) {
    const Sample<T>& tap = samples[s];
    if (!tap.inside) {
      for (int64_t i = 0; i < Lanes; ++i) {
        const bool take = T(0) > best[i];
        best[i] = take ? T(0) : best[i];
        number[i] = take ? s : number[i];
      }
      continue;
    }
    const T *p0 = image + tap.at[0], *p1 = image + tap.at[1], *p2 = image + tap.at[2], *p3 = image + tap.at[3];
    const T w0 = tap.weight[0], w1 = tap.weight[1], w2 = tap.weight[2], w3 = tap.weight[3];
    for (int64_t i = 0; i < Lanes; ++i) {
      const T v = w0 * p0[i] + w1 * p1[i] + w2 * p2[i] + w3 * p3[i];
      const bool take = (v > best[i]) | (v != v);
      best[i] = take ? v : best[i];
      number[i] = take ? s : number[i];
    }
  }
  for (int64_t i = 0; i < Lanes; ++i) out[i] = best[i], which[i] = number[i];
}

// `channel`: from one channel to the next
template <typename T>
CV_HD void greatest_of_border(const std::vector<Sample<T>>& samples, const T* image, int64_t channel, int64_t channels,
                              T* out, int32_t* which) {
  constexpr int64_t lanes = 32;  // not fewer: GCC turns a loop of 16 into scalar branches before it vectorises
  const auto count = static_cast<int32_t>(samples.size());
  int64_t c = 0;
  for (; channel == 1 && c + lanes <= channels; c += lanes)
    greatest<T, lanes>(samples.data(), count, image + c, out + c, which + c);
  for (; c < channels; ++c) greatest<T, 1>(samples.data(), count, image + c * channel, out + c, which + c);
}

// out (cols, ·) with rows `stride` apart = in (rows, cols) transposed
template <typename T>
CV_HD void transpose_to(T* CV_RESTRICT out, int64_t stride, const T* CV_RESTRICT in, int64_t rows, int64_t cols) {
  for (int64_t c = 0; c < cols; ++c)
    for (int64_t r = 0; r < rows; ++r) out[c * stride + r] = in[r * cols + c];
}

// Values of the map that all boxes read.
inline double values_read(const Params& p) {
  return 4.0 * kBorders * static_cast<double>(p.batch) * static_cast<double>(p.boxes) *
         (static_cast<double>(p.pool_size) + 1) * static_cast<double>(p.channels);
}

// x (N, H, W, 4 C) if nhwc, else (N, 4 C, H, W); out and samples (N, C, K, 4)
template <typename T>
void pool(const T* x, bool nhwc, const T* boxes, const Params& p, T* out, int32_t* samples) {
  const int64_t blocks = (p.boxes + kBoxes - 1) / kBoxes, stride = p.boxes * kBorders, tasks = p.batch * blocks;
  const roi::Strides in = roi::Strides::of(nhwc, kBorders * p.channels, p.plane());
  parallel_for(0, tasks, roi::grain_of_tasks(values_read(p), tasks), [&](int64_t begin, int64_t end) {
    std::vector<Sample<T>> border;
    std::vector<T> best(kBoxes * kBorders * p.channels);
    std::vector<int32_t> which(best.size());
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / blocks, first = task % blocks * kBoxes, last = std::min(first + kBoxes, p.boxes);
      const T* image = x + n * p.plane() * kBorders * p.channels;
      for (int64_t row = 0; row < (last - first) * kBorders; ++row) {
        const Border<T> b = make_border(boxes + 4 * (n * p.boxes + first + row / kBorders), row % kBorders, p);
        T* to = best.data() + row * p.channels;
        int32_t* which_to = which.data() + row * p.channels;
        if (!b.finite) {
          std::fill_n(to, p.channels, std::numeric_limits<T>::quiet_NaN());
          std::fill_n(which_to, p.channels, -1);
          continue;
        }
        sample_border(b, p, in.item, border);
        const T* group = image + row % kBorders * p.channels * in.channel;
        vectorized([&] { greatest_of_border(border, group, in.channel, p.channels, to, which_to); });
      }
      const int64_t at = n * p.channels * stride + first * kBorders, rows = (last - first) * kBorders;
      transpose_to(out + at, stride, best.data(), rows, p.channels);
      transpose_to(samples + at, stride, which.data(), rows, p.channels);
    }
  });
}

std::tuple<Tensor, Tensor> border_align_cpu(const Tensor& input, const Tensor& boxes, int64_t pool_size) {
  const Params p = forward_params(input, boxes, pool_size);
  const ScalarType acc = opmath_dtype(input.scalar_type());
  Tensor out = empty_beside(input, {p.batch, p.channels, p.boxes, kBorders}, acc);
  Tensor samples = empty_beside(input, {p.batch, p.channels, p.boxes, kBorders}, ScalarType::Int);
  const Tensor at = box_tensor(boxes, acc);
  dispatch_float_double(acc, "border_align", [&](auto t) {
    using T = typename decltype(t)::type;
    if (out.numel() == 0) return;
    const bool in_order = has_channels_last_order(input);
    const bool turn = !in_order && p.channels >= kRuns && values_read(p) > kTurnFrom * static_cast<double>(input.numel());
    const Tensor map = to_opmath(input), x = in_order || turn ? channels_last(map) : as_contiguous(map);
    pool(x.const_data_ptr<T>(), in_order || turn, at.const_data_ptr<T>(), p, out.mutable_data_ptr<T>(),
         samples.mutable_data_ptr<int32_t>());
  });
  return {to_dtype(std::move(out), input.scalar_type()), std::move(samples)};
}

// grad and samples (N, C, K, 4); grad_input (N, 4 C, H, W) or, if nhwc, (N, H, W, 4 C), zero before. A task has some
// channels of one border.
template <typename T>
void spread(const T* grad, const int32_t* samples, const T* boxes, const Params& p, T* grad_input, bool nhwc) {
  const roi::Partition part = roi::Partition::make(p.channels, tag<T>{});
  const roi::Strides in = roi::Strides::of(nhwc, kBorders * p.channels, p.plane());
  const int64_t tasks = p.batch * kBorders * part.blocks, all = p.batch * kBorders * p.boxes;
  const double work = static_cast<double>(all) * static_cast<double>(4 * p.channels + 8 * p.pool_size);
  parallel_for(0, tasks, roi::grain_of_tasks(work, tasks), [&](int64_t begin, int64_t end) {
    std::vector<Sample<T>> border;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / part.blocks / kBorders, which = task / part.blocks % kBorders;
      const int64_t first = task % part.blocks * part.block, last = std::min(first + part.block, p.channels);
      T* image = grad_input + n * p.plane() * kBorders * p.channels + which * p.channels * in.channel;
      for (int64_t k = 0; k < p.boxes; ++k) {
        const Border<T> b = make_border(boxes + 4 * (n * p.boxes + k), which, p);
        if (!b.finite) continue;
        sample_border(b, p, in.item, border);
        for (int64_t c = first; c < last; ++c) {
          const int64_t at = ((n * p.channels + c) * p.boxes + k) * kBorders + which;
          if (samples[at] < 0 || samples[at] > p.pool_size || !border[samples[at]].inside) continue;
          const Sample<T>& s = border[samples[at]];
          for (int i = 0; i < 4; ++i) image[s.at[i] + c * in.channel] += s.weight[i] * grad[at];
        }
      }
    }
  });
}

Tensor border_align_backward_cpu(const Tensor& grad, const Tensor& boxes, const Tensor& samples, int64_t pool_size,
                                 int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last_input,
                                 bool /*deterministic: always so here*/) {
  const Params p = make_params(boxes, n, c, h, w, pool_size);
  check_grad(grad, samples, boxes, p);
  const ScalarType acc = opmath_dtype(grad.scalar_type());
  Tensor grad_input = empty_4d(grad, n, c, h, w, acc, channels_last_input);
  zero_(grad_input);
  const Tensor g = as_contiguous(to_opmath(grad)), which = as_contiguous(samples), at = box_tensor(boxes, acc);
  dispatch_float_double(acc, "border_align_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    if (grad.numel() == 0 || grad_input.numel() == 0) return;
    spread(g.const_data_ptr<T>(), which.const_data_ptr<int32_t>(), at.const_data_ptr<T>(), p,
           grad_input.mutable_data_ptr<T>(), channels_last_input);
  });
  return to_dtype(grad_input, grad.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("border_align(Tensor input, Tensor boxes, int pool_size) -> (Tensor, Tensor)");
  m.def("border_align_backward(Tensor grad, Tensor boxes, Tensor samples, int pool_size, SymInt n, SymInt c, SymInt h, "
        "SymInt w, bool channels_last, bool deterministic) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("border_align", CV_BOX(&border_align_cpu));
  m.impl("border_align_backward", CV_BOX(&border_align_backward_cpu));
}

}  // namespace cv::border_align
