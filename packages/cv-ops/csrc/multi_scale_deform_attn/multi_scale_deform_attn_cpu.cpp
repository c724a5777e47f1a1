// Multi-scale deformable attention on the CPU. Half types are computed in float32.
//
// Forward: queries in parallel. For one head of one query the places and weights of all samples are found in one
// vectorised loop, and then pixels, which are runs of channels, are added up.
// Backward: gradients of places and weights by query; the gradient of the value by head (and part of its
// channels), each of which one task adds up, query after query: no atomics, and the same sums whatever the
// number of threads.

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/vec.h"
#include "multi_scale_deform_attn_args.h"

namespace cv::multi_scale_deform_attn {
namespace {

using torch::stable::parallel_for;

// The level of each sample of a head, spread out for the vectorised loop.
template <typename T>
struct SampleLevels {
  std::vector<T> height, width;
  std::vector<int32_t> start, columns;  // first key of the map; its width as an integer
};

template <typename T>
SampleLevels<T> read_levels(const Tensor& shapes, const Tensor& starts, const Params& p) {
  const Tensor shape_owner = as_contiguous(shapes), start_owner = as_contiguous(starts);
  const int64_t *shape = shape_owner.const_data_ptr<int64_t>(), *start = start_owner.const_data_ptr<int64_t>();
  SampleLevels<T> s;
  for (int64_t l = 0; l < p.levels; ++l) {
    const Level level{start[l], shape[2 * l], shape[2 * l + 1]};
    STD_TORCH_CHECK(level.fits(p.keys), "multi_scale_deform_attn: level ", l, " is ", level.height, " x ", level.width,
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

// Scratch memory of one task.
template <typename T>
struct Pixels {
  int64_t n;
  std::vector<int32_t> key;
  std::vector<T> weight, gathered;
  std::vector<const T*> rows;

  explicit Pixels(int64_t samples)
      : n(samples), key(samples), weight(4 * samples), gathered(4 * samples), rows(4 * samples) {}

  CV_HD void find(const Problem<T>& problem, int64_t row) {
    const SampleLevels<T>& l = *problem.levels;
    T* w = weight.data();
    find_pixels(n, problem.locations_of(row), problem.weights_of(row), l.height.data(), l.width.data(), l.start.data(),
                l.columns.data(), key.data(), w, w + n, w + 2 * n, w + 3 * n);
  }
};

template <typename T>
CV_HD void attend(const Problem<T>& problem, int64_t row, Pixels<T>& pixels, T* out) {
  const Params& p = problem.p;
  const int64_t n = pixels.n, stride = p.key_stride();
  pixels.find(problem, row);
  const T* map = problem.value + row / (p.queries * p.heads) * p.keys * stride + row % p.heads * p.channels;
  const int32_t *key = pixels.key.data(), *columns = problem.levels->columns.data();
  const T** rows = pixels.rows.data();
  T* gathered = pixels.gathered.data();
  int64_t count = 0;
  for (int64_t s = 0; s < n; ++s) {
    const int64_t at[4] = {key[s], key[s] + int64_t{1}, key[s] + int64_t{columns[s]}, key[s] + int64_t{columns[s]} + 1};
    for (int k = 0; k < 4; ++k) {
      const T w = pixels.weight[k * n + s];
      rows[count] = map + at[k] * stride;
      gathered[count] = w;
      count += w != T(0);
    }
  }
  weighted_sum(out, rows, gathered, count, p.channels);
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

  explicit Taps(int64_t n) : y(n), x(n), d(4 * n), rows(4 * n) {}
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

// Gradients of the places and weights of one head of one query.
template <typename T>
CV_HD void grad_samples(const Problem<T>& problem, int64_t row, Taps<T>& taps, const T* grad, T* grad_locations,
                        T* grad_weights) {
  const Params& p = problem.p;
  const SampleLevels<T>& l = *problem.levels;
  const int64_t n = p.samples(), stride = p.key_stride();
  find_taps(n, problem.locations_of(row), l.width, taps.x);
  find_taps(n, problem.locations_of(row) + 1, l.height, taps.y);
  const T* map = problem.value + row / (p.queries * p.heads) * p.keys * stride + row % p.heads * p.channels;
  const T** rows = taps.rows.data();
  for (int64_t s = 0; s < n; ++s) {
    const Tap<T> y = taps.y[s], x = taps.x[s];
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
    const SampleGrad<T> g = sample_grad(taps.y[s], taps.x[s], weight[s], l.height[s], l.width[s], d + 4 * s);
    grad_weights[s] = g.weight;
    grad_locations[2 * s] = g.x;
    grad_locations[2 * s + 1] = g.y;
  }
}

// Adds what all queries of one image and head give to the channels [begin, end) of grad_value.
template <typename T>
CV_HD void spread(const Problem<T>& problem, int64_t image, int64_t head, int64_t begin, int64_t end, Pixels<T>& pixels,
                  const T* grad, T* grad_value) {
  const Params& p = problem.p;
  const int64_t n = pixels.n, stride = p.key_stride();
  const int32_t *key = pixels.key.data(), *columns = problem.levels->columns.data();
  T* map = grad_value + image * p.keys * stride + head * p.channels + begin;
  for (int64_t q = 0; q < p.queries; ++q) {
    const int64_t row = (image * p.queries + q) * p.heads + head;
    pixels.find(problem, row);
    const T* g = grad + row * p.channels + begin;
    for (int64_t s = 0; s < n; ++s) {
      const int64_t at[4] = {key[s], key[s] + int64_t{1}, key[s] + int64_t{columns[s]},
                             key[s] + int64_t{columns[s]} + 1};
      for (int k = 0; k < 4; ++k) {
        const T w = pixels.weight[k * n + s];
        if (w != T(0)) add_scaled(map + at[k] * stride, g, w, end - begin);
      }
    }
  }
}

template <typename T>
void forward(const Problem<T>& problem, T* out) {
  const Params& p = problem.p;
  parallel_for(0, p.rows(), 32, [&](int64_t begin, int64_t end) {
    Pixels<T> pixels(p.samples());
    vectorized([&] {
      for (int64_t row = begin; row < end; ++row) attend(problem, row, pixels, out + row * p.channels);
    });
  });
}

template <typename T>
void backward_samples(const Problem<T>& problem, const T* grad, T* grad_locations, T* grad_weights) {
  const Params& p = problem.p;
  parallel_for(0, p.rows(), 32, [&](int64_t begin, int64_t end) {
    Taps<T> taps(p.samples());
    vectorized([&] {
      for (int64_t row = begin; row < end; ++row)
        grad_samples(problem, row, taps, grad + row * p.channels, grad_locations + row * p.samples() * 2,
                     grad_weights + row * p.samples());
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
  parallel_for(0, p.batch * p.heads * blocks, 1, [&](int64_t begin, int64_t end) {
    Pixels<T> pixels(p.samples());
    vectorized([&] {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t head = task / blocks, c = task % blocks * block;
        spread(problem, head / p.heads, head % p.heads, c, std::min(c + block, p.channels), pixels, grad, grad_value);
      }
    });
  });
}

bool is_empty(const Params& p) { return p.rows() == 0 || p.channels == 0 || p.samples() == 0; }

Tensor forward_cpu(const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
                   const Tensor& weights) {
  const Params p = make_params(value, shapes, starts, locations, weights);
  const ScalarType acc = opmath_dtype(value.scalar_type());
  const Tensor out = empty_beside(value, {p.batch, p.queries, p.key_stride()}, acc);
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
  return to_dtype(out, value.scalar_type());
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
  const auto zeros_like = [&](const Tensor& t, bool wanted) {
    return wanted ? torch::stable::new_zeros(t, t.sizes(), acc) : empty_beside(t, {0}, acc);
  };
  const Tensor grad_value = zeros_like(value, want_value), grad_locations = zeros_like(locations, want_samples),
               grad_weights = zeros_like(weights, want_samples);
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
  m.impl("multi_scale_deform_attn", TORCH_BOX(&forward_cpu));
  m.impl("multi_scale_deform_attn_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace cv::multi_scale_deform_attn
