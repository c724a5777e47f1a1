// RoIPool on the CPU. Maps are read as (N, H, W, C) and loops run over channels, except for few boxes on a large
// contiguous map, where turning the map would cost more. Nothing is computed with the values, so half types are
// compared in float32 and come back as they were.
//
// Everything is deterministic, on any number of threads: an element of the gradient belongs to one task, which
// adds box after box.

#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../common/isa.h"
#include "../common/roi_cpu.h"
#include "roi_pool_args.h"

namespace cv::roi_pool {
namespace {

using torch::stable::parallel_for;

// Channels compared at a time. Not fewer: GCC turns a loop of 16 into scalar branches before it vectorises.
constexpr int64_t kLanes = 32;
constexpr int64_t kWideLanes = 64;  // with the 32 registers of AVX-512

// A contiguous map is turned as a whole if boxes read more than this share of its pixels: measured.
constexpr double kTurnFrom = 0.5;

// Greatest pixel of the rows `y` and columns `x`, and its index in the map, for `Lanes` channels that lie side by
// side in every pixel. `from` is the first of them in the first pixel, strides are those of a pixel and a row.
// `more`: out and index hold the result of pixels before these. The first of equal pixels counts; NaN is taken,
// and then kept.
template <typename T, int64_t Lanes>
CV_HD void greatest(const T* from, int64_t pixel_stride, int64_t row_stride, int32_t width, Span y, Span x, bool more,
                    T* CV_RESTRICT out, int32_t* CV_RESTRICT index) {
  T best[Lanes];
  int32_t which[Lanes];
  for (int64_t i = 0; i < Lanes; ++i) {
    best[i] = more ? out[i] : from[i];
    which[i] = more ? index[i] : y.begin * width + x.begin;
  }
  for (int32_t row = y.begin; row < y.end; ++row, from += row_stride) {
    const T* at = from;
    for (int32_t pixel = row * width + x.begin; pixel < row * width + x.end; ++pixel, at += pixel_stride) {
      for (int64_t i = 0; i < Lanes; ++i) {
        const T v = at[i];
        const bool take = (v > best[i]) | (v != v);
        best[i] = take ? v : best[i];
        which[i] = take ? pixel : which[i];
      }
    }
  }
  for (int64_t i = 0; i < Lanes; ++i) out[i] = best[i], index[i] = which[i];
}

// The same for eight channels, all pixels at once. As vectors: of so short a loop GCC makes scalar branches.
template <typename T>
CV_HD void greatest_of_eight(const T* from, int64_t pixel_stride, int64_t row_stride, int32_t width, Span y, Span x,
                             T* CV_RESTRICT out, int32_t* CV_RESTRICT index) {
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef T Values __attribute__((vector_size(8 * sizeof(T))));
  typedef Index Indices __attribute__((vector_size(8 * sizeof(T))));
  Values best, v;
  std::memcpy(&best, from, sizeof best);
  Indices which = Indices{} + static_cast<Index>(y.begin * width + x.begin);
  for (int32_t row = y.begin; row < y.end; ++row, from += row_stride) {
    const T* at = from;
    for (int32_t pixel = row * width + x.begin; pixel < row * width + x.end; ++pixel, at += pixel_stride) {
      std::memcpy(&v, at, sizeof v);
      const Indices take = (v > best) | (v != v);
      best = take ? v : best;
      which = take ? Indices{} + static_cast<Index>(pixel) : which;
    }
  }
  std::memcpy(out, &best, sizeof best);
  for (int64_t i = 0; i < 8; ++i) index[i] = static_cast<int32_t>(which[i]);
}

// The same for all channels of an image (H, W, C)
template <typename T>
CV_HD void greatest_of_bin(const T* image, const Params& p, Span y, Span x, T* out, int32_t* index) {
  const auto width = static_cast<int32_t>(p.width);
  const int64_t row = p.width * p.channels;
  const T* from = image + y.begin * row + x.begin * p.channels;
  int64_t c = 0;
  if (cpu_isa() == Isa::avx512)
    for (; c + kWideLanes <= p.channels; c += kWideLanes)
      greatest<T, kWideLanes>(from + c, p.channels, row, width, y, x, false, out + c, index + c);
  for (; c + kLanes <= p.channels; c += kLanes)
    greatest<T, kLanes>(from + c, p.channels, row, width, y, x, false, out + c, index + c);
  for (; c + 8 <= p.channels; c += 8)
    greatest_of_eight<T>(from + c, p.channels, row, width, y, x, out + c, index + c);
  for (; c < p.channels; ++c) greatest<T, 1>(from + c, p.channels, row, width, y, x, false, out + c, index + c);
}

// x (N, H, W, C); out and argmax (K, C, bins), or (K, bins, C) if nhwc
template <typename T>
void pool_channels_last(const T* x, const T* rois, int64_t count, const Params& p, double work, T* out,
                        int32_t* argmax, bool nhwc) {
  const int64_t size = p.bins() * p.channels;
  parallel_for(0, count, roi::grain_of_tasks(work, count), [&](int64_t begin, int64_t end) {
    std::vector<T> best(nhwc ? 0 : size);
    std::vector<int32_t> index(nhwc ? 0 : size);
    for (int64_t k = begin; k < end; ++k) {
      const Region r = make_region(rois + 5 * k, p);
      T* to = out + k * size;
      int32_t* index_to = argmax + k * size;
      if (r.image < 0) {
        std::fill_n(to, size, std::numeric_limits<T>::quiet_NaN());
        std::fill_n(index_to, size, -1);
        continue;
      }
      const T* image = x + r.image * p.plane() * p.channels;
      T* bins_first = nhwc ? to : best.data();
      int32_t* index_first = nhwc ? index_to : index.data();
      vectorized([&] {
        for (int64_t b = 0; b < p.bins(); ++b) {
          const Span ys = r.y.span(b / p.pooled_w, p.pooled_h), xs = r.x.span(b % p.pooled_w, p.pooled_w);
          if (ys.empty() || xs.empty()) {
            std::fill_n(bins_first + b * p.channels, p.channels, T(0));
            std::fill_n(index_first + b * p.channels, p.channels, -1);
          } else {
            greatest_of_bin(image, p, ys, xs, bins_first + b * p.channels, index_first + b * p.channels);
          }
        }
        if (!nhwc) {
          transpose_small(to, best.data(), p.bins(), p.channels);
          transpose_small(index_to, index.data(), p.bins(), p.channels);
        }
      });
    }
  });
}

// Pools a region of `count` planes, at most kLanes. One row of the region at a time is turned, so that its pixels
// hold their channels side by side: branches on unordered values would cost several times as much.
template <typename T>
class PlanePool {
 public:
  // x (count, H, W); out and argmax (count, bins)
  CV_HD void pool(const T* x, int64_t count, const Region& r, const Params& p, T* out, int32_t* argmax) {
    columns_.resize(p.pooled_w);
    best_.resize(p.pooled_w * kLanes);
    which_.resize(p.pooled_w * kLanes);
    for (int64_t b = 0; b < p.pooled_w; ++b) columns_[b] = r.x.span(b, p.pooled_w);
    const Span whole{columns_.front().begin, columns_.back().end};
    if (!whole.empty()) row_.resize((whole.end - whole.begin) * kLanes);
    for (int64_t b = 0; b < p.pooled_h; ++b) {
      const Span rows = r.y.span(b, p.pooled_h);
      std::fill(best_.begin(), best_.end(), T(0));
      std::fill(which_.begin(), which_.end(), -1);
      for (int32_t y = rows.begin; y < rows.end; ++y) pool_row(x, count, y, whole, y > rows.begin, p);
      hand_out(count, p, b, out, argmax);
    }
  }

 private:
  std::vector<Span> columns_;   // of the bins
  std::vector<T> row_;          // (pixels, kLanes)
  std::vector<T> best_;         // (bins of a row, kLanes)
  std::vector<int32_t> which_;  // (bins of a row, kLanes)

  CV_HD void pool_row(const T* x, int64_t count, int32_t y, Span whole, bool more, const Params& p) {
    const auto width = static_cast<int32_t>(p.width);
    turn(x + y * width + whole.begin, p.plane(), count, whole.end - whole.begin, row_.data());
    for (int64_t b = 0; b < p.pooled_w; ++b) {
      const Span span = columns_[b];
      if (span.empty()) continue;
      greatest<T, kLanes>(row_.data() + (span.begin - whole.begin) * kLanes, kLanes, 0, width, Span{y, y + 1}, span,
                          more, best_.data() + b * kLanes, which_.data() + b * kLanes);
    }
  }

  // rows of `count` planes, (count, length), to (length, kLanes)
  static CV_HD void turn(const T* CV_RESTRICT in, int64_t plane, int64_t count, int64_t length, T* CV_RESTRICT out) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t x = 0; x < length; ++x) out[x * kLanes + i] = in[i * plane + x];
  }

  CV_HD void hand_out(int64_t count, const Params& p, int64_t row_of_bins, T* out, int32_t* argmax) const {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = i * p.bins() + row_of_bins * p.pooled_w;
      for (int64_t b = 0; b < p.pooled_w; ++b) {
        out[at + b] = best_[b * kLanes + i];
        argmax[at + b] = which_[b * kLanes + i];
      }
    }
  }
};

// x (N, C, H, W); out and argmax (K, C, bins)
template <typename T>
void pool_planes(const T* x, const T* rois, int64_t count, const Params& p, double work, T* out, int32_t* argmax) {
  const int64_t blocks = (p.channels + kLanes - 1) / kLanes;
  parallel_for(0, count * blocks, roi::grain_of_tasks(work, count * blocks), [&](int64_t begin, int64_t end) {
    PlanePool<T> planes;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task / blocks, c = task % blocks * kLanes, n = std::min(kLanes, p.channels - c);
      const int64_t at = (k * p.channels + c) * p.bins();
      const Region r = make_region(rois + 5 * k, p);
      if (r.image < 0) {
        std::fill_n(out + at, n * p.bins(), std::numeric_limits<T>::quiet_NaN());
        std::fill_n(argmax + at, n * p.bins(), -1);
      } else {
        const T* from = x + (r.image * p.channels + c) * p.plane();
        vectorized([&] { planes.pool(from, n, r, p, out + at, argmax + at); });
      }
    }
  });
}

// The same for one plane, whose rows are at least a vector of so many bytes long: the greatest value, and then the
// first pixel that has it. False where a pixel is NaN.
template <int32_t Bytes, typename T>
CV_HD bool greatest_in_rows(const T* from, int32_t width, Span y, Span x, T* out, int32_t* index) {
  constexpr int32_t lanes = Bytes / sizeof(T);
  typedef T Values __attribute__((vector_size(Bytes)));
  const int32_t length = x.end - x.begin;
  Values best, v;
  std::memcpy(&best, from, sizeof best);
  auto ordered = best == best;
  for (int32_t row = 0; row < y.end - y.begin; ++row) {
    for (int32_t i = 0; i < length; i += lanes) {
      std::memcpy(&v, from + row * static_cast<int64_t>(width) + std::min(i, length - lanes), sizeof v);
      best = v > best ? v : best;
      ordered &= v == v;
    }
  }
  T greatest = best[0];
  bool all = true;
  for (int32_t i = 0; i < lanes; ++i) {
    greatest = best[i] > greatest ? best[i] : greatest;
    all &= ordered[i] != 0;
  }
  for (int32_t row = y.begin; all && row < y.end; ++row, from += width) {
    for (int32_t i = 0; i < length; ++i) {
      if (from[i] != greatest) continue;
      *out = from[i];
      *index = row * width + x.begin + i;
      return true;
    }
  }
  return false;
}

template <typename T>
CV_HD bool greatest_of_plane(const T* from, int32_t width, Span y, Span x, T* out, int32_t* index) {
  const int64_t bytes = (x.end - x.begin) * static_cast<int64_t>(sizeof(T));
  if (bytes >= 32) return greatest_in_rows<32>(from, width, y, x, out, index);
  return bytes >= 16 && greatest_in_rows<16>(from, width, y, x, out, index);
}

// A few channels, wherever they lie. x (N, C, H, W) and out, argmax (K, C, bins), or x (N, H, W, C) and (K, bins, C)
// if nhwc.
template <typename T>
void pool_few(const T* x, const T* rois, int64_t count, const Params& p, double work, T* out, int32_t* argmax,
              bool nhwc) {
  const int64_t size = p.bins() * p.channels;
  const auto width = static_cast<int32_t>(p.width);
  const roi::Strides in = roi::Strides::of(nhwc, p.channels, p.plane());
  const roi::Strides to = roi::Strides::of(nhwc, p.channels, p.bins());
  parallel_for(0, count, roi::grain_of_tasks(work, count), [&](int64_t begin, int64_t end) {
    std::vector<Span> columns(p.pooled_w);
    for (int64_t k = begin; k < end; ++k) {
      const Region r = make_region(rois + 5 * k, p);
      std::fill_n(out + k * size, size, r.image < 0 ? std::numeric_limits<T>::quiet_NaN() : T(0));
      std::fill_n(argmax + k * size, size, -1);
      if (r.image < 0) continue;
      const T* image = x + r.image * p.plane() * p.channels;
      for (int64_t pw = 0; pw < p.pooled_w; ++pw) columns[pw] = r.x.span(pw, p.pooled_w);
      for (int64_t ph = 0; ph < p.pooled_h; ++ph) {
        const Span ys = r.y.span(ph, p.pooled_h);
        for (int64_t pw = 0; pw < p.pooled_w; ++pw) {
          const Span xs = columns[pw];
          if (ys.empty() || xs.empty()) continue;
          const T* from = image + (ys.begin * p.width + xs.begin) * in.item;
          int64_t at = k * size + (ph * p.pooled_w + pw) * to.item;
          vectorized([&] {
            for (int64_t c = 0; c < p.channels; ++c, at += to.channel, from += in.channel)
              if (in.item != 1 || !greatest_of_plane(from, width, ys, xs, out + at, argmax + at))
                greatest<T, 1>(from, in.item, in.item * p.width, width, ys, xs, false, out + at, argmax + at);
          });
        }
      }
    }
  });
}

// Pixels that all boxes read together, shared ones of neighbouring bins left out.
template <typename T>
double pixels_read(const T* rois, int64_t count, const Params& p, bool exactly) {
  const auto length = [](const Axis& a, int64_t bins) {
    return static_cast<double>(a.span(bins - 1, bins).end - a.span(0, bins).begin);
  };
  return roi::total_cost(count, exactly, [&](int64_t k) {
    const Region r = make_region(rois + 5 * k, p);
    return r.image < 0 ? 0.0 : length(r.y, p.pooled_h) * length(r.x, p.pooled_w);
  });
}

std::tuple<Tensor, Tensor> roi_pool_cpu(const Tensor& input, const Tensor& rois, double spatial_scale,
                                        int64_t pooled_h, int64_t pooled_w) {
  const Params p = make_params(input, rois, spatial_scale, pooled_h, pooled_w);
  const ScalarType acc = opmath_dtype(input.scalar_type());
  const bool nhwc = is_channels_last(input);
  const int64_t count = rois.size(0);
  Tensor out = empty_4d(input, count, p.channels, pooled_h, pooled_w, acc, nhwc);
  Tensor argmax = empty_4d(input, count, p.channels, pooled_h, pooled_w, ScalarType::Int, nhwc);
  const Tensor regions = region_tensor(rois, acc);
  dispatch_float_double(acc, "roi_pool", [&](auto t) {
    using T = typename decltype(t)::type;
    const T* r = regions.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    int32_t* index = argmax.mutable_data_ptr<int32_t>();
    roi::check_images("roi_pool", r, count, 5, p.batch);
    if (out.numel() == 0) return;
    const bool few = p.channels < roi::kFewChannels;
    const double read = pixels_read(r, count, p, !few && !nhwc), work = 2 * read * static_cast<double>(p.channels);
    if (few) {
      const Tensor x = nhwc ? to_opmath(input) : as_contiguous(to_opmath(input));
      pool_few(x.const_data_ptr<T>(), r, count, p, work, to, index, nhwc);
    } else if (nhwc || roi::reads_more(read, kTurnFrom, p)) {
      const Tensor x = channels_last_cpu<T>(to_opmath(input));
      pool_channels_last(x.const_data_ptr<T>(), r, count, p, work, to, index, nhwc);
    } else {
      const Tensor x = as_contiguous(to_opmath(input));
      pool_planes(x.const_data_ptr<T>(), r, count, p, work, to, index);
    }
  });
  return {to_dtype(std::move(out), input.scalar_type()), std::move(argmax)};
}

// A run of the gradient: `count` numbers that belong to one plane.
template <typename T>
inline void spread_run(const T* CV_RESTRICT grad, const int32_t* CV_RESTRICT argmax, int64_t count, int64_t plane_size,
                       T* CV_RESTRICT plane) {
  for (int64_t b = 0; b < count; ++b)
    if (static_cast<uint64_t>(argmax[b]) < static_cast<uint64_t>(plane_size)) plane[argmax[b]] += grad[b];
}

// grad and argmax (K, C, bins), grad_input (N, C, H, W). Some planes at a time: what they take from one box lies side
// by side, and one plane alone would read a few lines of each page of memory.
template <typename T>
void spread_planes(const T* grad, const int32_t* argmax, const T* rois, int64_t count, const Params& p,
                   T* grad_input) {
  constexpr int64_t planes = 8;
  const int64_t blocks = (p.channels + planes - 1) / planes;
  const int64_t tasks = p.batch * blocks, grain = roi::grain_of_tasks(2.0 * static_cast<double>(count * p.channels * p.bins()), tasks);
  parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / blocks, first = task % blocks * planes;
      const int64_t last = std::min(first + planes, p.channels);
      T* to = grad_input + image * p.channels * p.plane();
      for (int64_t k = 0; k < count; ++k) {
        if (roi::image_of(rois[5 * k], p.batch) != image) continue;
        for (int64_t c = first; c < last; ++c) {
          const int64_t at = (k * p.channels + c) * p.bins();
          spread_run(grad + at, argmax + at, p.bins(), p.plane(), to + c * p.plane());
        }
      }
    }
  });
}

// grad and argmax (K, bins, C), grad_input (N, H, W, C)
template <typename T>
void spread_channels_last(const T* grad, const int32_t* argmax, const T* rois, int64_t count, const Params& p,
                          T* grad_input) {
  const roi::Partition part = roi::Partition::make(p.channels, tag<T>{});
  const int64_t tasks = part.blocks * part.bands;
  const int64_t grain = roi::grain_of_tasks(2.0 * static_cast<double>(count * p.channels * p.bins()), tasks);
  parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % part.blocks * part.block, last = std::min(first + part.block, p.channels);
      const int64_t band = task / part.blocks;
      for (int64_t k = 0; k < count; ++k) {
        const int64_t image = roi::image_of(rois[5 * k], p.batch);
        if (image < 0) continue;
        T* to = grad_input + image * p.plane() * p.channels;
        for (int64_t b = 0; b < p.bins(); ++b) {
          const int64_t at = (k * p.bins() + b) * p.channels;
          for (int64_t c = first; c < last; ++c) {
            const int32_t pixel = argmax[at + c];
            if (pixel < 0 || pixel >= p.plane() || (part.bands > 1 && pixel / p.width % part.bands != band)) continue;
            to[pixel * p.channels + c] += grad[at + c];
          }
        }
      }
    }
  });
}

Tensor roi_pool_backward_cpu(const Tensor& grad, const Tensor& rois, const Tensor& argmax, int64_t n, int64_t c,
                             int64_t h, int64_t w, bool channels_last_input,
                             bool /*deterministic: always so here*/) {
  const Params p = backward_params(grad, rois, argmax, n, c, h, w);
  const ScalarType acc = opmath_dtype(grad.scalar_type());
  Tensor grad_input = empty_4d(grad, n, c, h, w, acc, channels_last_input);
  zero_(grad_input);
  const auto in_layout = [&](const Tensor& t) { return channels_last_input ? channels_last(t) : as_contiguous(t); };
  const Tensor g = in_layout(to_opmath(grad)), at = in_layout(argmax), regions = region_tensor(rois, acc);
  dispatch_float_double(acc, "roi_pool_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    if (grad.numel() == 0 || grad_input.numel() == 0) return;
    const auto spread = channels_last_input ? spread_channels_last<T> : spread_planes<T>;
    spread(g.const_data_ptr<T>(), at.const_data_ptr<int32_t>(), regions.const_data_ptr<T>(), rois.size(0), p,
           grad_input.mutable_data_ptr<T>());
  });
  return to_dtype(grad_input, grad.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("roi_pool(Tensor input, Tensor rois, float spatial_scale, int pooled_h, int pooled_w) -> (Tensor, Tensor)");
  m.def("roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, SymInt n, SymInt c, SymInt h, SymInt w, "
        "bool channels_last, bool deterministic) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("roi_pool", CV_BOX(&roi_pool_cpu));
  m.impl("roi_pool_backward", CV_BOX(&roi_pool_backward_cpu));
}

}  // namespace cv::roi_pool
