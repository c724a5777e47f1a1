// correlation on the CPU, and its schema.
//
// Maps are copied row by row to (N, H, C, width), with zeros at both ends as wide as the largest displacement:
// every inner loop then runs over whole vectors of columns, forward (four displacements share what they read of
// the first map) and backward (four channels share the weights). The copy is small against what follows: each
// of its numbers is used for each displacement.

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/parallel.h"
#include "../common/vec.h"
#include "correlation_args.h"

namespace cv::correlation {
namespace {

using torch::stable::parallel_for;

// A map as (N, H, C, row) with `margin` zeros before the columns, and at least as many behind them.
template <typename A>
struct Rows {
  int64_t channels, height, columns, margin, row;  // columns: the width, rounded up to whole vectors
  std::vector<A> data;

  const A* at(int64_t n, int64_t y, int64_t c) const { return data.data() + ((n * height + y) * channels + c) * row; }

  template <typename T>
  static Rows copy(const T* from, const Params& p, int64_t margin) {
    constexpr int64_t lanes = Vec<A>::size;
    Rows r{p.channels, p.height, (p.width + lanes - 1) / lanes * lanes, margin, 0, {}};
    r.row = r.columns + 2 * margin;
    r.data.resize(p.batch * p.height * p.channels * r.row);
    parallel_for(0, p.batch * p.height, grain_for(p.channels * r.row), [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const int64_t n = line / p.height, y = line % p.height;
        for (int64_t c = 0; c < p.channels; ++c) {
          const T* row = from + ((n * p.channels + c) * p.height + y) * p.width;
          A* to = r.data.data() + (line * p.channels + c) * r.row + margin;
          for (int64_t x = 0; x < p.width; ++x) to[x] = static_cast<A>(row[x]);
        }
      }
    });
    return r;
  }
};

// The displacements along one axis that leave a map of this size: others meet only zeros.
struct Shifts {
  int64_t begin, end, largest;

  Shifts(const Params& p, int64_t size) {
    const int64_t reach = size > 0 ? std::min(p.displacement, (size - 1) / p.dilation_patch) : 0;
    begin = p.displacement - reach;
    end = p.displacement + reach + 1;
    largest = reach * p.dilation_patch;
  }
};

// sums[q][x] += sum over c of first[c][x] second[c][x + shift of q], for kCount neighbouring q
template <int kCount, typename A>
CV_HD void add_products(const A* first, int64_t first_row, const A* second, int64_t second_row, int64_t step,
                        int64_t channels, int64_t columns, A* sums) {
  using V = Vec<A>;
  for (int64_t x = 0; x < columns; x += V::size) {
    V s[kCount];
    for (int k = 0; k < kCount; ++k) s[k] = V::load(sums + k * columns + x);
    for (int64_t c = 0; c < channels; ++c) {
      const V a = V::load(first + c * first_row + x);
      for (int k = 0; k < kCount; ++k) s[k] += a * V::load(second + c * second_row + k * step + x);
    }
    for (int k = 0; k < kCount; ++k) s[k].store(sums + k * columns + x);
  }
}

// Where the displaced place is outside, an infinity times the zero there must be 0.
template <typename A>
CV_HD void clear_outside(A* sums, int64_t width, int64_t shift) {
  if (shift < 0)
    std::fill(sums, sums - shift, A(0));
  else
    std::fill(sums + width - shift, sums + width, A(0));
}

// out[w] = sum over the taps j of sums[position], which is 0 outside [0, width)
template <typename T, typename A>
CV_HD void store_row(const A* CV_RESTRICT sums, const Params& p, int64_t outputs, T* CV_RESTRICT out) {
  if (p.kernel == 1 && p.stride == 1 && p.padding == 0) {
    for (int64_t w = 0; w < outputs; ++w) out[w] = static_cast<T>(sums[w]);
    return;
  }
  for (int64_t w = 0; w < outputs; ++w) {
    A sum = A(0);
    for (int64_t j = 0; j < p.kernel; ++j) {
      const int64_t x = p.position(w, j);
      if (x >= 0 && x < p.width) sum += sums[x];
    }
    out[w] = static_cast<T>(sum);
  }
}

template <typename T>
void forward(const Params& p, const T* first, const T* second, T* out) {
  using A = opmath_t<T>;
  const int64_t patch = p.patch(), out_h = p.out_size(p.height), out_w = p.out_size(p.width);
  const Shifts across(p, p.width);
  const auto a = Rows<A>::copy(first, p, 0), b = Rows<A>::copy(second, p, across.largest);
  const int64_t products = patch * patch * p.kernel * p.kernel * p.channels * a.columns;
  parallel_for(0, p.batch * out_h, grain_for(products), [&](int64_t begin, int64_t end) {
    std::vector<A> sums(patch * a.columns);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / out_h, h = task % out_h;
      for (int64_t ph = 0; ph < patch; ++ph) {
        std::fill(sums.begin(), sums.end(), A(0));
        vectorized([&] {
          for (int64_t i = 0; i < p.kernel; ++i) {
            const int64_t y = p.position(h, i), other = y + p.shift(ph);
            if (y < 0 || y >= p.height || other < 0 || other >= p.height) continue;
            const A *from = a.at(n, y, 0), *to = b.at(n, other, 0) + b.margin;
            int64_t pw = across.begin;
            for (; pw + 4 <= across.end; pw += 4)
              add_products<4>(from, a.row, to + p.shift(pw), b.row, p.dilation_patch, p.channels, a.columns,
                              sums.data() + pw * a.columns);
            for (; pw < across.end; ++pw)
              add_products<1>(from, a.row, to + p.shift(pw), b.row, p.dilation_patch, p.channels, a.columns,
                              sums.data() + pw * a.columns);
          }
          for (int64_t pw = across.begin; pw < across.end; ++pw)
            clear_outside(sums.data() + pw * a.columns, p.width, p.shift(pw));
          for (int64_t pw = 0; pw < patch; ++pw)
            store_row(sums.data() + pw * a.columns, p, out_w,
                      out + (((n * patch + ph) * patch + pw) * out_h + h) * out_w);
        });
      }
    }
  });
}

// One displacement with its weights: where the other map's row begins, and the weight of each column.
template <typename A>
struct Term {
  const A* row;  // of channel 0, moved by the displacement
  const A* weights;
};

// out[c][x] = sum over terms of weights[x] row[c][x], for kCount channels from c on
template <int kCount, typename T, typename A>
CV_HD void sum_terms(const std::vector<Term<A>>& terms, int64_t c, int64_t row, int64_t columns, int64_t width,
                     T* out, int64_t plane) {
  using V = Vec<A>;
  for (int64_t x = 0; x < columns; x += V::size) {
    V s[kCount];
    for (int k = 0; k < kCount; ++k) s[k] = V::zero();
    for (const Term<A>& t : terms) {
      const V weight = V::load(t.weights + x);
      for (int k = 0; k < kCount; ++k) s[k] += weight * V::load(t.row + (c + k) * row + x);
    }
    const int64_t n = std::min<int64_t>(V::size, width - x);
    for (int k = 0; k < kCount; ++k) {
      A values[V::size];
      s[k].store(values);
      for (int64_t i = 0; i < n; ++i) out[k * plane + x + i] = static_cast<T>(values[i]);
    }
  }
}

// weights[x + offset] = G[p, q, y, x] of the header, 0 where x or x + shift is outside (an infinite gradient must
// not meet the zeros there). grad: (out_h, out_w) of one p, q.
template <typename T, typename A>
CV_HD void spread(const T* grad, const Params& p, int64_t y, int64_t shift, int64_t offset, A* weights) {
  const int64_t begin = std::max<int64_t>(0, -shift), end = std::min(p.width, p.width - shift);
  const int64_t out_h = p.out_size(p.height), out_w = p.out_size(p.width);
  for (int64_t i = 0; i < p.kernel; ++i) {
    const int64_t h = p.output_of(y, i, out_h);
    if (h < 0) continue;
    const T* row = grad + h * out_w;
    for (int64_t j = 0; j < p.kernel; ++j) {
      for (int64_t w = 0; w < out_w; ++w) {
        const int64_t x = p.position(w, j);
        if (x >= begin && x < end) weights[x + offset] += static_cast<A>(row[w]);
      }
    }
  }
}

// The gradient of one map: sign 1 of the first (`other` is the second), -1 the other way round.
template <typename T>
void backward(const Params& p, const T* grad, const Rows<opmath_t<T>>& other, int64_t sign, T* out) {
  using A = opmath_t<T>;
  const int64_t patch = p.patch(), size = p.out_size(p.height) * p.out_size(p.width);
  const Shifts across(p, p.width), down(p, p.height);
  const int64_t products = patch * patch * p.channels * other.columns;
  parallel_for(0, p.batch * p.height, grain_for(products), [&](int64_t begin, int64_t end) {
    std::vector<A> weights(patch * (across.end - across.begin) * other.columns);
    std::vector<Term<A>> terms;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / p.height, y = task % p.height;
      std::fill(weights.begin(), weights.end(), A(0));
      terms.clear();
      vectorized([&] {
        A* next = weights.data();
        for (int64_t ph = down.begin; ph < down.end; ++ph) {
          const int64_t row = y + sign * p.shift(ph);
          if (row < 0 || row >= p.height) continue;
          for (int64_t pw = across.begin; pw < across.end; ++pw, next += other.columns) {
            const T* g = grad + ((n * patch + ph) * patch + pw) * size;
            // G is taken where the first map was read: here, or at the place that the displacement came from.
            spread(g, p, sign > 0 ? y : row, p.shift(pw), sign > 0 ? 0 : p.shift(pw), next);
            terms.push_back({other.at(n, row, 0) + other.margin + sign * p.shift(pw), next});
          }
        }
        T* to = out + (n * p.channels * p.height + y) * p.width;
        const int64_t plane = p.height * p.width;
        int64_t c = 0;
        for (; c + 4 <= p.channels; c += 4)
          sum_terms<4>(terms, c, other.row, other.columns, p.width, to + c * plane, plane);
        for (; c < p.channels; ++c) sum_terms<1>(terms, c, other.row, other.columns, p.width, to + c * plane, plane);
      });
    }
  });
}

Tensor forward_cpu(const Tensor& input1, const Tensor& input2, int64_t kernel, int64_t displacement, int64_t stride,
                   int64_t padding, int64_t dilation, int64_t dilation_patch) {
  const Params p = check(input1, input2, kernel, displacement, stride, padding, dilation, dilation_patch);
  const Tensor a = as_contiguous(input1), b = as_contiguous(input2);
  const Tensor out =
      empty_beside(a, {p.batch, p.patch(), p.patch(), p.out_size(p.height), p.out_size(p.width)}, a.scalar_type());
  if (out.numel() == 0) return out;
  dispatch_float(a.scalar_type(), "correlation", [&](auto type) {
    using T = typename decltype(type)::type;
    forward(p, a.const_data_ptr<T>(), b.const_data_ptr<T>(), out.mutable_data_ptr<T>());
  });
  return out;
}

std::tuple<Tensor, Tensor> backward_cpu(const Tensor& grad, const Tensor& input1, const Tensor& input2, int64_t kernel,
                                        int64_t displacement, int64_t stride, int64_t padding, int64_t dilation,
                                        int64_t dilation_patch) {
  const Params p = check(input1, input2, kernel, displacement, stride, padding, dilation, dilation_patch);
  check_grad(grad, input1, p);
  const Tensor g = as_contiguous(grad), a = as_contiguous(input1), b = as_contiguous(input2);
  const Tensor grad1 = empty_beside(a, {p.batch, p.channels, p.height, p.width}, a.scalar_type());
  const Tensor grad2 = empty_beside(a, {p.batch, p.channels, p.height, p.width}, a.scalar_type());
  if (grad1.numel() == 0) return {grad1, grad2};
  dispatch_float(a.scalar_type(), "correlation_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    using A = opmath_t<T>;
    const int64_t margin = Shifts(p, p.width).largest;
    const T* gp = g.const_data_ptr<T>();
    backward(p, gp, Rows<A>::copy(b.const_data_ptr<T>(), p, margin), 1, grad1.mutable_data_ptr<T>());
    backward(p, gp, Rows<A>::copy(a.const_data_ptr<T>(), p, margin), -1, grad2.mutable_data_ptr<T>());
  });
  return {grad1, grad2};
}

}  // namespace

#define CV_CORRELATION_OPTIONS \
  "int kernel_size, int max_displacement, int stride, int padding, int dilation, int dilation_patch"

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("correlation(Tensor input1, Tensor input2, " CV_CORRELATION_OPTIONS ") -> Tensor");
  m.def("correlation_backward(Tensor grad, Tensor input1, Tensor input2, " CV_CORRELATION_OPTIONS
        ") -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("correlation", CV_BOX(&forward_cpu));
  m.impl("correlation_backward", CV_BOX(&backward_cpu));
}

}  // namespace cv::correlation
