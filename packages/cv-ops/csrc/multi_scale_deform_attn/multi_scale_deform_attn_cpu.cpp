// Multi-scale deformable attention on the CPU. Half types are computed in float32.
//
// Forward: heads of queries in parallel. The places and weights of the samples of some heads are found in one
// vectorised loop, and then pixels, which are runs of channels, are added up.
// Backward: gradients of places and weights by query; the gradient of the value by head (and part of its
// channels), each of which one task adds up, query after query: no atomics, and the same sums whatever the
// number of threads.

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/parallel.h"
#include "../common/vec.h"
#include "multi_scale_deform_attn_args.h"

namespace cv::multi_scale_deform_attn {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kChunkSamples = 1 << 18;  // whose pixels are kept at once: 20 bytes each

// The level of each sample of a head, spread out for the vectorised loop, which takes `rows` heads at once: those of
// a few samples would not fill vectors.
template <typename T>
struct SampleLevels {
  int64_t rows;
  std::vector<T> height, width;
  std::vector<int32_t> start, columns;  // first key of the map; its width as an integer
};

template <typename T>
SampleLevels<T> read_levels(const Tensor& shapes, const Tensor& starts, const Params& p) {
  const Tensor shape_owner = as_contiguous(shapes), start_owner = as_contiguous(starts);
  const int64_t *shape = shape_owner.const_data_ptr<int64_t>(), *start = start_owner.const_data_ptr<int64_t>();
  SampleLevels<T> s;
  s.rows = std::clamp<int64_t>(64 / std::max<int64_t>(1, p.samples()), 1, std::clamp<int64_t>(p.rows(), 1, 64));
  for (int64_t l = 0; l < p.levels * s.rows; ++l) {
    const int64_t level_of = l % p.levels;
    const Level level{start[level_of], shape[2 * level_of], shape[2 * level_of + 1]};
    STD_TORCH_CHECK(level.fits(p.keys), "multi_scale_deform_attn: level ", level_of, " is ", level.height, " x ", level.width,
                    " from key ", level.start, " on, but value has ", p.keys, " keys");
    s.height.insert(s.height.end(), p.points, static_cast<T>(level.height));
    s.width.insert(s.width.end(), p.points, static_cast<T>(level.width));
    s.start.insert(s.start.end(), p.points, static_cast<int32_t>(level.start));
    s.columns.insert(s.columns.end(), p.points, static_cast<int32_t>(level.width));
  }
  return s;
}

template <typename T>
struct Problem {
  Params p;
  const SampleLevels<T>* levels;
  const T *value, *locations, *weights, *zeros;  // zeros: read instead of a pixel outside the map

  const T* locations_of(int64_t row) const { return locations + row * p.samples() * 2; }
  const T* weights_of(int64_t row) const { return weights + row * p.samples(); }
};

// The four pixels of each sample and their weights, attention included: key[s], +1, +columns, +columns + 1.
template <typename T>
CV_HD void find_pixels(int64_t n, const T* CV_RESTRICT locations, const T* CV_RESTRICT attention,
                       const T* CV_RESTRICT height, const T* CV_RESTRICT width, const int32_t* CV_RESTRICT start,
                       const int32_t* CV_RESTRICT columns, int32_t* CV_RESTRICT key, T* CV_RESTRICT w0,
                       T* CV_RESTRICT w1, T* CV_RESTRICT w2, T* CV_RESTRICT w3) {
  for (int64_t s = 0; s < n; ++s) {
    const Tap<T> x = make_tap(locations[2 * s], width[s]), y = make_tap(locations[2 * s + 1], height[s]);
    key[s] = start[s] + y.low * columns[s] + x.low;
    const T top = attention[s] * y.low_weight, bottom = attention[s] * y.high_weight;
    // Not the product alone: attention that is not finite times 0 is NaN, and the pixel outside would be touched.
    w0[s] = y.in_low * x.in_low != T(0) ? top * x.low_weight : T(0);
    w1[s] = y.in_low * x.in_high != T(0) ? top * x.high_weight : T(0);
    w2[s] = y.in_high * x.in_low != T(0) ? bottom * x.low_weight : T(0);
    w3[s] = y.in_high * x.in_high != T(0) ? bottom * x.high_weight : T(0);
  }
}

// Pixels of the samples of some rows.
template <typename T>
struct Pixels {
  int64_t n, size;  // samples of a row, of all
  std::vector<int32_t> key;
  std::vector<T> weight;

  Pixels(int64_t samples, int64_t rows) : n(samples), size(samples * rows), key(size), weight(4 * size) {}

  // Rows [row, row + count) of the problem, to row `at` on.
  CV_HD void find(const Problem<T>& problem, int64_t row, int64_t count, int64_t at) {
    const SampleLevels<T>& l = *problem.levels;
    for (int64_t r = 0; r < count; r += l.rows) {
      T* w = weight.data() + (at + r) * n;
      find_pixels(std::min(l.rows, count - r) * n, problem.locations_of(row + r), problem.weights_of(row + r),
                  l.height.data(), l.width.data(), l.start.data(), l.columns.data(), key.data() + (at + r) * n, w,
                  w + size, w + 2 * size, w + 3 * size);
    }
  }
};

// Scratch memory of one task.
template <typename T>
struct Gathered {
  std::vector<const T*> rows;
  std::vector<T> weights;

  explicit Gathered(int64_t samples) : rows(4 * samples), weights(4 * samples) {}
};

// `at`: of the row's samples in `pixels`
template <typename T>
CV_HD void attend(const Problem<T>& problem, int64_t row, const Pixels<T>& pixels, int64_t at, Gathered<T>& gathered,
                  T* out) {
  const Params& p = problem.p;
  const int64_t n = pixels.n, stride = p.key_stride();
  const T* map = problem.value + row / (p.queries * p.heads) * p.keys * stride + row % p.heads * p.channels;
  const int32_t *key = pixels.key.data() + at, *columns = problem.levels->columns.data();
  const T** rows = gathered.rows.data();
  T* weights = gathered.weights.data();
  int64_t count = 0;
  for (int64_t s = 0; s < n; ++s) {
    const int64_t keys[4] = {key[s], key[s] + int64_t{1}, key[s] + int64_t{columns[s]},
                             key[s] + int64_t{columns[s]} + 1};
    for (int k = 0; k < 4; ++k) {
      const T w = pixels.weight[k * pixels.size + at + s];
      rows[count] = map + keys[k] * stride;
      weights[count] = w;
      count += w != T(0);
    }
  }
  weighted_sum(out, rows, weights, count, p.channels);
}

// The same for fewer channels than a vector has: a sample's four pixels at once, and no list of pixels.
template <typename T>
CV_HD void attend_few(const Problem<T>& problem, int64_t row, const Pixels<T>& pixels, int64_t at, T* CV_RESTRICT out) {
  static constexpr T zeros[Vec<T>::size] = {};
  const Params& p = problem.p;
  const int64_t stride = p.key_stride();
  const T* map = problem.value + row / (p.queries * p.heads) * p.keys * stride + row % p.heads * p.channels;
  const int32_t *key = pixels.key.data() + at, *columns = problem.levels->columns.data();
  const T* w = pixels.weight.data() + at;
  T sums[4][Vec<T>::size] = {};
  for (int64_t s = 0; s < pixels.n; ++s) {
    const T w0 = w[s], w1 = w[pixels.size + s], w2 = w[2 * pixels.size + s], w3 = w[3 * pixels.size + s];
    const int64_t upper = key[s] * stride, lower = upper + columns[s] * stride;
    const T *r0 = w0 != T(0) ? map + upper : zeros, *r1 = w1 != T(0) ? map + upper + stride : zeros;
    const T *r2 = w2 != T(0) ? map + lower : zeros, *r3 = w3 != T(0) ? map + lower + stride : zeros;
    for (int64_t c = 0; c < p.channels; ++c) {
      sums[0][c] += w0 * r0[c];
      sums[1][c] += w1 * r1[c];
      sums[2][c] += w2 * r2[c];
      sums[3][c] += w3 * r3[c];
    }
  }
  for (int64_t c = 0; c < p.channels; ++c) out[c] = (sums[0][c] + sums[1][c]) + (sums[2][c] + sums[3][c]);
}

// One axis of the samples of a head: what Tap has, as arrays.
template <typename T>
struct AxisTaps {
  std::vector<int32_t> low;
  std::vector<T> in_low, in_high, low_weight, high_weight;

  explicit AxisTaps(int64_t n) : low(n), in_low(n), in_high(n), low_weight(n), high_weight(n) {}
  CV_HD Tap<T> operator[](int64_t s) const { return {low[s], in_low[s], in_high[s], low_weight[s], high_weight[s]}; }
};

// Scratch memory of one task.
template <typename T>
struct Taps {
  AxisTaps<T> y, x;
  std::vector<T> d;  // four dot products of a sample
  std::vector<const T*> rows;

  Taps(int64_t samples, int64_t heads) : y(samples * heads), x(samples * heads), d(4 * samples), rows(4 * samples) {}
};

// locations: every second number
template <typename T>
CV_HD void find_taps(int64_t n, const T* CV_RESTRICT locations, const T* CV_RESTRICT size, int32_t* CV_RESTRICT low,
                     T* CV_RESTRICT in_low, T* CV_RESTRICT in_high, T* CV_RESTRICT low_weight,
                     T* CV_RESTRICT high_weight) {
  for (int64_t s = 0; s < n; ++s) {
    const Tap<T> t = make_tap(locations[2 * s], size[s]);
    low[s] = t.low;
    in_low[s] = t.in_low;
    in_high[s] = t.in_high;
    low_weight[s] = t.low_weight;
    high_weight[s] = t.high_weight;
  }
}

template <typename T>
CV_HD void find_taps(int64_t n, const T* locations, const std::vector<T>& size, AxisTaps<T>& t) {
  find_taps(n, locations, size.data(), t.low.data(), t.in_low.data(), t.in_high.data(), t.low_weight.data(),
            t.high_weight.data());
}

// Gradients of the places and weights of one head of one query, whose taps are from `at` on.
template <typename T>
CV_HD void grad_samples(const Problem<T>& problem, int64_t row, Taps<T>& taps, int64_t at, const T* grad,
                        T* grad_locations, T* grad_weights) {
  const Params& p = problem.p;
  const SampleLevels<T>& l = *problem.levels;
  const int64_t n = p.samples(), stride = p.key_stride();
  const T* map = problem.value + row / (p.queries * p.heads) * p.keys * stride + row % p.heads * p.channels;
  const T** rows = taps.rows.data();
  for (int64_t s = 0; s < n; ++s) {
    const Tap<T> y = taps.y[at + s], x = taps.x[at + s];
    const int64_t key = int64_t{l.start[s]} + int64_t{y.low} * l.columns[s] + x.low;
    const T *upper = map + key * stride, *lower = upper + l.columns[s] * stride;
    rows[4 * s] = y.in_low * x.in_low != T(0) ? upper : problem.zeros;
    rows[4 * s + 1] = y.in_low * x.in_high != T(0) ? upper + stride : problem.zeros;
    rows[4 * s + 2] = y.in_high * x.in_low != T(0) ? lower : problem.zeros;
    rows[4 * s + 3] = y.in_high * x.in_high != T(0) ? lower + stride : problem.zeros;
  }
  T* d = taps.d.data();
  std::fill_n(d, 4 * n, T(0));
  for (int64_t s = 0; s < n; ++s) dot_rows(d + 4 * s, grad, rows + 4 * s, p.channels);
  const T* weight = problem.weights_of(row);
  for (int64_t s = 0; s < n; ++s) {
    const SampleGrad<T> g = sample_grad(taps.y[at + s], taps.x[at + s], weight[s], l.height[s], l.width[s], d + 4 * s);
    grad_weights[s] = g.weight;
    grad_locations[2 * s] = g.x;
    grad_locations[2 * s + 1] = g.y;
  }
}

// Adds what the queries [first, first + count) of one image and head give to the channels [begin, end) of grad_value.
// Their pixels: (batch, count, heads) rows.
template <typename T>
CV_HD void spread(const Problem<T>& problem, int64_t image, int64_t first, int64_t count, int64_t head, int64_t begin,
                  int64_t end, const Pixels<T>& pixels, const T* grad, T* grad_value) {
  const Params& p = problem.p;
  const int64_t n = pixels.n, stride = p.key_stride();
  const int32_t* columns = problem.levels->columns.data();
  T* map = grad_value + image * p.keys * stride + head * p.channels + begin;
  for (int64_t q = 0; q < count; ++q) {
    const T* g = grad + ((image * p.queries + first + q) * p.heads + head) * p.channels + begin;
    const int64_t at = ((image * count + q) * p.heads + head) * n;
    const int32_t* key = pixels.key.data() + at;
    for (int64_t s = 0; s < n; ++s) {
      const int64_t keys[4] = {key[s], key[s] + int64_t{1}, key[s] + int64_t{columns[s]},
                               key[s] + int64_t{columns[s]} + 1};
      for (int k = 0; k < 4; ++k) {
        const T w = pixels.weight[k * pixels.size + at + s];
        if (w != T(0)) add_scaled(map + keys[k] * stride, g, w, end - begin);
      }
    }
  }
}

// Operations of a sample of so many channels, about.
template <typename T>
int64_t operations(int64_t channels) {
  return 16 + 4 * std::min(channels, channels / Vec<T>::size + 8);
}

template <typename T>
void forward(const Problem<T>& problem, T* out) {
  const Params& p = problem.p;
  const int64_t at_once = problem.levels->rows;
  parallel_for(0, p.rows(), grain_for(p.samples() * operations<T>(p.channels)), [&](int64_t begin, int64_t end) {
    Pixels<T> pixels(p.samples(), at_once);
    Gathered<T> gathered(p.samples());
    vectorized([&] {
      for (int64_t first = begin; first < end; first += at_once) {
        const int64_t count = std::min(at_once, end - first);
        pixels.find(problem, first, count, 0);
        for (int64_t r = 0; r < count; ++r) {
          T* to = out + (first + r) * p.channels;
          if (p.channels < Vec<T>::size)
            attend_few(problem, first + r, pixels, r * p.samples(), to);
          else
            attend(problem, first + r, pixels, r * p.samples(), gathered, to);
        }
      }
    });
  });
}

template <typename T>
void backward_samples(const Problem<T>& problem, const T* grad, T* grad_locations, T* grad_weights) {
  const Params& p = problem.p;
  const int64_t n = p.samples(), at_once = problem.levels->rows;
  parallel_for(0, p.rows(), grain_for(n * operations<T>(p.channels)), [&](int64_t begin, int64_t end) {
    Taps<T> taps(n, at_once);
    vectorized([&] {
      for (int64_t first = begin; first < end; first += at_once) {
        const int64_t count = std::min(at_once, end - first);
        find_taps(count * n, problem.locations_of(first), problem.levels->width, taps.x);
        find_taps(count * n, problem.locations_of(first) + 1, problem.levels->height, taps.y);
        for (int64_t row = first; row < first + count; ++row)
          grad_samples(problem, row, taps, (row - first) * n, grad + row * p.channels, grad_locations + row * n * 2,
                       grad_weights + row * n);
      }
    });
  });
}

template <typename T>
void backward_value(const Problem<T>& problem, const T* grad, T* grad_value) {
  const Params& p = problem.p;
  // Heads are split into cache lines of channels only where there are too few for the threads.
  const int64_t tasks_wanted = 4 * torch::stable::get_num_threads();
  const int64_t block = p.batch * p.heads >= tasks_wanted ? p.channels : std::min(p.channels, 2 * Vec<T>::size);
  const int64_t blocks = (p.channels + block - 1) / block;
  const int64_t per_query = p.batch * p.heads * p.samples();
  const int64_t chunk = std::clamp<int64_t>(kChunkSamples / per_query, 1, p.queries);
  Pixels<T> pixels(p.samples(), p.batch * chunk * p.heads);
  for (int64_t first = 0; first < p.queries; first += chunk) {
    const int64_t count = std::min(chunk, p.queries - first);
    parallel_for(0, p.batch * count, grain_for(16 * p.heads * p.samples()), [&](int64_t begin, int64_t end) {
      vectorized([&] {
        for (int64_t i = begin; i < end;) {  // what is of one image at once
          const int64_t image = i / count, stop = std::min(end, (image + 1) * count);
          pixels.find(problem, (image * p.queries + first + i % count) * p.heads, (stop - i) * p.heads, i * p.heads);
          i = stop;
        }
      });
    });
    const int64_t work = count * p.samples() * operations<T>(block);
    parallel_for(0, p.batch * p.heads * blocks, grain_for(work), [&](int64_t begin, int64_t end) {
      vectorized([&] {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t head = task / blocks, c = task % blocks * block;
          spread(problem, head / p.heads, first, count, head % p.heads, c, std::min(c + block, p.channels), pixels, grad,
                 grad_value);
        }
      });
    });
  }
}

bool is_empty(const Params& p) { return p.rows() == 0 || p.channels == 0 || p.samples() == 0; }

Tensor forward_cpu(const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
                   const Tensor& weights) {
  const Params p = make_params(value, shapes, starts, locations, weights);
  const ScalarType acc = opmath_dtype(value.scalar_type());
  Tensor out = empty_beside(value, {p.batch, p.queries, p.key_stride()}, acc);
  dispatch_float_double(acc, "multi_scale_deform_attn", [&](auto t) {
    using T = typename decltype(t)::type;
    T* data = out.mutable_data_ptr<T>();
    const SampleLevels<T> levels = read_levels<T>(shapes, starts, p);
    if (is_empty(p)) {
      std::fill_n(data, out.numel(), T(0));
      return;
    }
    const Tensor v = as_contiguous(to_opmath(value)), l = as_contiguous(to_dtype(locations, acc)),
                 w = as_contiguous(to_dtype(weights, acc));
    forward(Problem<T>{p, &levels, v.const_data_ptr<T>(), l.const_data_ptr<T>(), w.const_data_ptr<T>(), nullptr}, data);
  });
  return to_dtype(std::move(out), value.scalar_type());
}

// (grad_value, grad_locations, grad_weights), each in the dtype of what it belongs to; those not wanted have no
// elements.
std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& grad, const Tensor& value, const Tensor& shapes,
                                                const Tensor& starts, const Tensor& locations, const Tensor& weights,
                                                bool want_value, bool want_samples,
                                                bool /*deterministic: always so here*/) {
  const Params p = make_params(value, shapes, starts, locations, weights);
  check_grad(grad, value, p);
  const ScalarType acc = opmath_dtype(value.scalar_type());
  const auto empty_like = [&](const Tensor& t, bool wanted, std::initializer_list<int64_t> sizes) {
    return wanted ? empty_beside(t, sizes, acc) : empty_beside(t, {0}, acc);
  };
  const Tensor grad_value = empty_like(value, want_value, {p.batch, p.keys, p.heads, p.channels}),
               grad_locations = empty_like(locations, want_samples,
                                           {p.batch, p.queries, p.heads, p.levels, p.points, 2}),
               grad_weights = empty_like(weights, want_samples, {p.batch, p.queries, p.heads, p.levels, p.points});
  zero_(grad_value);
  if (is_empty(p)) zero_(grad_locations), zero_(grad_weights);
  dispatch_float_double(acc, "multi_scale_deform_attn_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    const SampleLevels<T> levels = read_levels<T>(shapes, starts, p);
    if (is_empty(p)) return;
    const Tensor v = as_contiguous(to_opmath(value)), l = as_contiguous(to_dtype(locations, acc)),
                 w = as_contiguous(to_dtype(weights, acc)), g = as_contiguous(to_opmath(grad)),
                 zeros = torch::stable::new_zeros(v, {p.channels});
    const Problem<T> problem{p, &levels, v.const_data_ptr<T>(), l.const_data_ptr<T>(), w.const_data_ptr<T>(),
                             zeros.const_data_ptr<T>()};
    const T* from = g.const_data_ptr<T>();
    if (want_samples)
      backward_samples(problem, from, grad_locations.mutable_data_ptr<T>(), grad_weights.mutable_data_ptr<T>());
    if (want_value) backward_value(problem, from, grad_value.mutable_data_ptr<T>());
  });
  return {to_dtype(grad_value, value.scalar_type()), to_dtype(grad_locations, locations.scalar_type()),
          to_dtype(grad_weights, weights.scalar_type())};
}

}  // namespace

#define CV_ATTENTION_INPUTS \
  "Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor sampling_locations, Tensor attention_weights"
STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("multi_scale_deform_attn(" CV_ATTENTION_INPUTS ") -> Tensor");
  m.def("multi_scale_deform_attn_backward(Tensor grad, " CV_ATTENTION_INPUTS
        ", bool want_value, bool want_samples, bool deterministic) -> (Tensor, Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("multi_scale_deform_attn", CV_BOX(&forward_cpu));
  m.impl("multi_scale_deform_attn_backward", CV_BOX(&backward_cpu));
}

}  // namespace cv::multi_scale_deform_attn
