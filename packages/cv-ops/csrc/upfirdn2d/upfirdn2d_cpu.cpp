// upfirdn2d on the CPU, and its schema.
//
// Each output row is a weighted sum of input rows, then of shifted copies of that sum: every loop runs over
// columns without a gap. What makes that so for up and down other than 1: outputs o = q period + r of one
// residue r share their taps and read the samples q step + offset, where up / down = period / step in lowest
// terms; so a row is split into `step` phases before, and its `period` residues are interleaved after.
//
// A kernel of rank 1 (the usual one: the outer product of a binomial) needs KH + KW instead of KH KW terms.
//
// Rows of a few columns are too short for vectors: then 16 planes lie side by side, and loops run over planes.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/vec.h"
#include "upfirdn2d_args.h"

namespace cv::upfirdn2d {
namespace {

constexpr int64_t kBandElements = 1 << 15;  // outputs of a task

// f = column row' to rounding; the largest weight of `column` is 1, so that nothing overflows in between.
template <typename A>
bool factor(const std::vector<A>& f, int64_t kh, int64_t kw, std::vector<A>& column, std::vector<A>& row) {
  const auto larger = [](A a, A b) { return std::abs(a) < std::abs(b); };
  const int64_t top = std::max_element(f.begin(), f.end(), larger) - f.begin();
  if (!(std::abs(f[top]) > A(0)) || !std::isfinite(f[top])) return false;
  const int64_t y = top / kw, x = top % kw;
  row.assign(f.begin() + y * kw, f.begin() + (y + 1) * kw);
  column.resize(kh);
  for (int64_t i = 0; i < kh; ++i) column[i] = f[i * kw + x] / f[top];
  const A tolerance = 8 * std::numeric_limits<A>::epsilon();
  for (int64_t i = 0; i < kh; ++i)
    for (int64_t j = 0; j < kw; ++j)
      if (!(std::abs(f[i * kw + j] - column[i] * row[j]) <= tolerance * std::abs(f[i * kw + j]))) return false;
  return true;
}

// The kernel in the order in which taps meet samples, and its factors if it has rank 1.
template <typename A>
struct Weights {
  std::vector<A> f, column, row;
  bool separable;

  Weights(const Params& p, const A* kernel) : f(kernel, kernel + p.y.taps * p.x.taps) {
    if (p.flip) std::reverse(f.begin(), f.end());
    separable = factor(f, p.y.taps, p.x.taps, column, row);
  }
};

struct Tap {
  int64_t k, offset;
};

// The columns: where the taps of each residue are in a row that was padded with zeros and split into phases.
struct Columns {
  Axis axis;
  int64_t period, step, low, phase;  // low: the first sample held (0 or below); phase: elements of a phase
  std::vector<std::vector<Tap>> taps;  // by residue; offsets are into the padded row

  explicit Columns(const Axis& a) : axis(a) {
    const int64_t divisor = std::gcd(a.up, a.down);
    period = a.up / divisor;
    step = a.down / divisor;
    int64_t high = a.in;
    low = 0;
    for (int64_t r = 0; r < std::min(period, a.out); ++r) {
      const int64_t first = a.first_sample(r), tap = a.first_tap(r);
      if (tap >= a.taps) continue;
      low = std::min(low, first);
      high = std::max(high, first + (a.taps - 1 - tap) / a.up + (count(r) - 1) * step + 1);
    }
    phase = (high - low + step - 1) / step;
    taps.resize(std::min(period, a.out));
    for (int64_t r = 0; r < static_cast<int64_t>(taps.size()); ++r) {
      int64_t at = a.first_sample(r) - low;
      for (int64_t k = a.first_tap(r); k < a.taps; k += a.up, ++at)
        taps[r].push_back({k, at % step * phase + at / step});
    }
  }

  int64_t count(int64_t r) const { return (axis.out - r + period - 1) / period; }  // outputs of residue r
  int64_t padded() const { return step * phase; }
  int64_t origin() const { return -low; }  // where sample 0 is, before the split
};

template <typename T, typename A>
inline void convert(const T* CV_RESTRICT from, int64_t n, A* CV_RESTRICT to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<A>(from[i]);
}

// to[s][i] = from[i step + s]
template <typename A>
inline void split(const A* CV_RESTRICT from, int64_t step, int64_t phase, A* CV_RESTRICT to) {
  if (step == 2) {
    for (int64_t i = 0; i < phase; ++i) {
      to[i] = from[2 * i];
      to[phase + i] = from[2 * i + 1];
    }
  } else {
    for (int64_t s = 0; s < step; ++s)
      for (int64_t i = 0; i < phase; ++i) to[s * phase + i] = from[i * step + s];
  }
}

// to[q period + r] = from[r][q], `stride` elements between the residues of `from`
template <typename T, typename A>
inline void interleave(const A* CV_RESTRICT from, int64_t stride, int64_t period, int64_t n, T* CV_RESTRICT to) {
  const int64_t whole = n / period;
  if (period == 2) {
    for (int64_t q = 0; q < whole; ++q) {
      to[2 * q] = static_cast<T>(from[q]);
      to[2 * q + 1] = static_cast<T>(from[stride + q]);
    }
  } else {
    for (int64_t r = 0; r < period; ++r)
      for (int64_t q = 0; q < whole; ++q) to[q * period + r] = static_cast<T>(from[r * stride + q]);
  }
  for (int64_t r = 0; r < n - whole * period; ++r) to[whole * period + r] = static_cast<T>(from[r * stride + whole]);
}

template <typename T>
class Filter {
 public:
  using A = opmath_t<T>;

  Filter(const Params& p, const A* kernel) : y_(p.y), columns_(p.x), w_(p, kernel) {
    stride_ = (columns_.count(0) + kSlack - 1) / kSlack * kSlack;
  }

  struct Scratch {
    std::vector<A> rows, split, sum, residues, weights;
    std::vector<const A*> at, from;
  };

  // Output rows [begin, end) of one plane.
  void run(const T* in, int64_t begin, int64_t end, T* out, Scratch& s) const {
    const int64_t first = std::clamp<int64_t>(y_.first_sample(begin), 0, y_.in);
    const int64_t last = std::clamp<int64_t>(floor_div((end - 1) * y_.down + y_.taps - 1 - y_.pad, y_.up) + 1, first, y_.in);
    const int64_t padded = columns_.padded() + kSlack;
    s.residues.resize(columns_.period * stride_);
    s.at.assign(y_.taps * columns_.axis.taps, nullptr);
    s.weights.resize(s.at.size());
    s.sum.assign(padded, A(0));
    s.split.resize(padded);
    load(in, first, last, s);
    for (int64_t o = begin; o < end; ++o) {
      w_.separable ? one_row_separable(o, first, s) : one_row(o, first, s);
      store(s, out + o * columns_.axis.out);
    }
  }

 private:
  // s.from[i]: row first + i, of A; padded and split if the kernel is not separable
  void load(const T* in, int64_t first, int64_t last, Scratch& s) const {
    const int64_t width = columns_.axis.in, padded = columns_.padded();
    const bool in_place = w_.separable && std::is_same_v<T, A>;
    s.from.resize(last - first);
    if (!in_place) s.rows.resize((last - first) * (w_.separable ? width : padded) + kSlack);
    for (int64_t i = first; i < last; ++i) {
      const T* row = in + i * width;
      if (in_place) {
        s.from[i - first] = reinterpret_cast<const A*>(row);
      } else if (w_.separable) {
        A* to = s.rows.data() + (i - first) * width;
        convert(row, width, to);
        s.from[i - first] = to;
      } else {
        A* to = s.rows.data() + (i - first) * padded;
        convert(row, width, s.sum.data() + columns_.origin());
        split(s.sum.data(), columns_.step, columns_.phase, to);
        s.from[i - first] = to;
      }
    }
  }

  void one_row_separable(int64_t o, int64_t first, Scratch& s) const {
    int64_t n = 0, sample = y_.first_sample(o);
    for (int64_t k = y_.first_tap(o); k < y_.taps; k += y_.up, ++sample) {
      if (sample < 0 || sample >= y_.in) continue;
      s.at[n] = s.from[sample - first];
      s.weights[n++] = w_.column[k];
    }
    weighted_sum(s.sum.data() + columns_.origin(), s.at.data(), s.weights.data(), n, columns_.axis.in);
    const A* padded = s.sum.data();
    if (columns_.step > 1) {
      split(padded, columns_.step, columns_.phase, s.split.data());
      padded = s.split.data();
    }
    for (int64_t r = 0; r < static_cast<int64_t>(columns_.taps.size()); ++r) {
      n = 0;
      for (const Tap& tap : columns_.taps[r]) {
        s.at[n] = padded + tap.offset;
        s.weights[n++] = w_.row[tap.k];
      }
      sum_residue(r, n, s);
    }
  }

  void one_row(int64_t o, int64_t first, Scratch& s) const {
    for (int64_t r = 0; r < static_cast<int64_t>(columns_.taps.size()); ++r) {
      int64_t n = 0, sample = y_.first_sample(o);
      for (int64_t k = y_.first_tap(o); k < y_.taps; k += y_.up, ++sample) {
        if (sample < 0 || sample >= y_.in) continue;
        for (const Tap& tap : columns_.taps[r]) {
          s.at[n] = s.from[sample - first] + tap.offset;
          s.weights[n++] = w_.f[k * columns_.axis.taps + tap.k];
        }
      }
      sum_residue(r, n, s);
    }
  }

  void sum_residue(int64_t r, int64_t n, Scratch& s) const {
    weighted_sum(s.residues.data() + r * stride_, s.at.data(), s.weights.data(), n, stride_);
  }

  void store(const Scratch& s, T* out) const {
    const int64_t width = columns_.axis.out;
    if (columns_.period == 1)
      convert(s.residues.data(), width, out);
    else
      interleave(s.residues.data(), stride_, columns_.period, width, out);
  }

  static constexpr int64_t kSlack = Vec<A>::size;  // readable elements behind a row: sums are of whole vectors

  Axis y_;
  Columns columns_;
  Weights<A> w_;
  int64_t stride_;  // of the residues of an output row
};

// Planes side by side.
template <typename T>
class NarrowFilter {
 public:
  using A = opmath_t<T>;
  static constexpr int64_t kPlanes = Vec<A>::size;

  static bool suits(const Params& p) {
    return p.planes >= kPlanes / 2 && p.x.in <= kWidest && p.x.out <= kWidest && p.y.in <= kTallest;
  }

  NarrowFilter(const Params& p, const A* kernel) : y_(p.y), x_(p.x), w_(p, kernel) {}

  struct Scratch {
    std::vector<A> in, sum, out, weights;
    std::vector<const A*> at;
  };

  // `planes` planes, at most kPlanes.
  void run(const T* in, int64_t planes, T* out, Scratch& s) const {
    const int64_t pixels = y_.in * x_.in;
    s.in.assign(pixels * kPlanes, A(0));
    s.sum.resize(x_.in * kPlanes);
    s.out.resize(x_.out * kPlanes);
    s.at.assign(std::max(y_.taps, y_.taps * x_.taps), nullptr);
    s.weights.resize(s.at.size());
    for (int64_t c = 0; c < planes; ++c)
      for (int64_t i = 0; i < pixels; ++i) s.in[i * kPlanes + c] = static_cast<A>(in[c * pixels + i]);
    for (int64_t o = 0; o < y_.out; ++o) {
      w_.separable ? one_row_separable(o, s) : one_row(o, s);
      for (int64_t c = 0; c < planes; ++c) {
        T* to = out + (c * y_.out + o) * x_.out;
        for (int64_t x = 0; x < x_.out; ++x) to[x] = static_cast<T>(s.out[x * kPlanes + c]);
      }
    }
  }

 private:
  static constexpr int64_t kWidest = 24, kTallest = 4096;  // scratch stays within a few MB

  // f(tap, sample) of those that output o of an axis meets
  template <typename F>
  static void each_tap(const Axis& axis, int64_t o, F&& f) {
    int64_t sample = axis.first_sample(o);
    for (int64_t k = axis.first_tap(o); k < axis.taps; k += axis.up, ++sample)
      if (sample >= 0 && sample < axis.in) f(k, sample);
  }

  void one_row_separable(int64_t o, Scratch& s) const {
    int64_t n = 0;
    const auto term = [&](const A* from, A weight) {
      s.at[n] = from;
      s.weights[n++] = weight;
    };
    each_tap(y_, o, [&](int64_t k, int64_t y) { term(&s.in[y * x_.in * kPlanes], w_.column[k]); });
    weighted_sum(s.sum.data(), s.at.data(), s.weights.data(), n, x_.in * kPlanes);
    for (int64_t x = 0; x < x_.out; ++x) {
      n = 0;
      each_tap(x_, x, [&](int64_t k, int64_t from) { term(&s.sum[from * kPlanes], w_.row[k]); });
      weighted_sum(&s.out[x * kPlanes], s.at.data(), s.weights.data(), n, kPlanes);
    }
  }

  void one_row(int64_t o, Scratch& s) const {
    for (int64_t x = 0; x < x_.out; ++x) {
      int64_t n = 0;
      each_tap(y_, o, [&](int64_t ky, int64_t y) {
        each_tap(x_, x, [&](int64_t kx, int64_t from) {
          s.at[n] = &s.in[(y * x_.in + from) * kPlanes];
          s.weights[n++] = w_.f[ky * x_.taps + kx];
        });
      });
      weighted_sum(&s.out[x * kPlanes], s.at.data(), s.weights.data(), n, kPlanes);
    }
  }

  Axis y_, x_;
  Weights<A> w_;
};

template <typename T>
void run_narrow(const Params& p, const T* in, const opmath_t<T>* kernel, T* out) {
  using F = NarrowFilter<T>;
  const F filter(p, kernel);
  const int64_t grain = std::max<int64_t>(1, kBandElements / 2 / (F::kPlanes * p.y.out * p.x.out));
  const int64_t blocks = (p.planes + F::kPlanes - 1) / F::kPlanes;
  torch::stable::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    typename F::Scratch scratch;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * F::kPlanes, planes = std::min(F::kPlanes, p.planes - first);
      const T* from = in + first * p.y.in * p.x.in;
      T* to = out + first * p.y.out * p.x.out;
      vectorized([&] { filter.run(from, planes, to, scratch); });
    }
  });
}

template <typename T>
void run(const Params& p, const T* in, const opmath_t<T>* kernel, T* out) {
  const Filter<T> filter(p, kernel);
  const int64_t band = std::clamp<int64_t>(kBandElements / p.x.out, 4, p.y.out > 4 ? p.y.out : 4);
  const int64_t bands = (p.y.out + band - 1) / band;
  const int64_t grain = std::max<int64_t>(1, kBandElements / 2 / (std::min(band, p.y.out) * p.x.out));
  torch::stable::parallel_for(0, p.planes * bands, grain, [&](int64_t begin, int64_t end) {
    typename Filter<T>::Scratch scratch;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t plane = task / bands, first = task % bands * band, last = std::min(first + band, p.y.out);
      const T* from = in + plane * p.y.in * p.x.in;
      T* to = out + plane * p.y.out * p.x.out;
      vectorized([&] { filter.run(from, first, last, to, scratch); });
    }
  });
}

Tensor upfirdn2d_cpu(const Tensor& input, const Tensor& kernel, int64_t up_x, int64_t up_y, int64_t down_x,
                     int64_t down_y, int64_t pad_x0, int64_t pad_x1, int64_t pad_y0, int64_t pad_y1, bool flip) {
  const Params p = check(input, kernel, up_x, up_y, down_x, down_y, pad_x0, pad_x1, pad_y0, pad_y1, flip);
  const Tensor x = as_contiguous(input), k = as_contiguous(to_opmath(kernel));
  const Tensor out = empty_beside(x, {x.size(0), x.size(1), p.y.out, p.x.out}, x.scalar_type());
  if (out.numel() == 0) return out;
  dispatch_float(x.scalar_type(), "upfirdn2d", [&](auto type) {
    using T = typename decltype(type)::type;
    const auto f = NarrowFilter<T>::suits(p) ? &run_narrow<T> : &run<T>;
    f(p, x.const_data_ptr<T>(), k.const_data_ptr<opmath_t<T>>(), out.mutable_data_ptr<T>());
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("upfirdn2d(Tensor input, Tensor kernel, int up_x, int up_y, int down_x, int down_y, SymInt pad_x0, "
        "SymInt pad_x1, SymInt pad_y0, SymInt pad_y1, bool flip) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("upfirdn2d", CV_BOX(&upfirdn2d_cpu)); }

}  // namespace cv::upfirdn2d
