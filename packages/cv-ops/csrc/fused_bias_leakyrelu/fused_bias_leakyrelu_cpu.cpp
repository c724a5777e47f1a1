// fused_bias_leakyrelu on the CPU, and its schema: one pass over memory, forward and backward.
//
// The gradient of the bias is added up chunk by chunk, chunks in order: the cut depends on the shape alone, so
// the result does not depend on the number of threads.

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "fused_bias_leakyrelu_args.h"

namespace cv::fused_bias_leakyrelu {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kChunk = 1 << 14;  // elements
constexpr int kLanes = 16;           // partial sums that the compiler may form at once

// sign: null to take it from x + bias
template <typename T, typename A>
inline void run_plane(const T* CV_RESTRICT x, A bias, const T* CV_RESTRICT sign, int64_t n, Factors<A> f,
                      T* CV_RESTRICT out) {
  if (sign == nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const A z = static_cast<A>(x[i]) + bias;
      out[i] = static_cast<T>(z * f(z));
    }
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>((static_cast<A>(x[i]) + bias) * f(static_cast<A>(sign[i])));
  }
}

template <typename T, typename A>
inline void run_row(const T* CV_RESTRICT x, const T* CV_RESTRICT bias, const T* CV_RESTRICT sign, int64_t n,
                    Factors<A> f, T* CV_RESTRICT out) {
  if (sign == nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const A z = static_cast<A>(x[i]) + static_cast<A>(bias[i]);
      out[i] = static_cast<T>(z * f(z));
    }
  } else {
    for (int64_t i = 0; i < n; ++i)
      out[i] = static_cast<T>((static_cast<A>(x[i]) + static_cast<A>(bias[i])) * f(static_cast<A>(sign[i])));
  }
}

// Returns the sum of what it stores.
template <typename T, typename A>
inline A backward_plane(const T* CV_RESTRICT grad, const T* CV_RESTRICT y, int64_t n, Factors<A> f,
                        T* CV_RESTRICT out) {
  A lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const A g = static_cast<A>(grad[i + k]) * f(static_cast<A>(y[i + k]));
      out[i + k] = static_cast<T>(g);
      lanes[k] += g;
    }
  }
  A sum = A(0);
  for (A lane : lanes) sum += lane;
  for (; i < n; ++i) {
    const A g = static_cast<A>(grad[i]) * f(static_cast<A>(y[i]));
    out[i] = static_cast<T>(g);
    sum += g;
  }
  return sum;
}

template <typename T, typename A>
inline void backward_row(const T* CV_RESTRICT grad, const T* CV_RESTRICT y, int64_t n, Factors<A> f,
                         T* CV_RESTRICT out, A* CV_RESTRICT sums) {
  for (int64_t i = 0; i < n; ++i) {
    const A g = static_cast<A>(grad[i]) * f(static_cast<A>(y[i]));
    out[i] = static_cast<T>(g);
    sums[i] += g;
  }
}

// How the work is cut: pieces of planes, or of rows where channels lie side by side.
struct Cut {
  int64_t pieces, per_piece, grain;  // pieces of a plane (of all rows if inner is 1), elements or rows of a piece

  explicit Cut(const Shape& s) {
    const int64_t length = s.inner == 1 ? s.outer : s.inner;
    const int64_t width = s.inner == 1 ? std::max<int64_t>(s.channels, 1) : 1;
    per_piece = std::max<int64_t>(1, kChunk / width);
    pieces = (length + per_piece - 1) / per_piece;
    grain = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, std::min(per_piece, length) * width));
  }
};

template <typename T>
void run(const Shape& s, const T* x, const T* bias, const T* sign, Factors<opmath_t<T>> f, T* out) {
  using A = opmath_t<T>;
  const Cut cut(s);
  const auto at = [&](int64_t i) { return sign == nullptr ? nullptr : sign + i; };
  parallel_for(0, s.inner == 1 ? cut.pieces : s.outer * s.channels * cut.pieces, cut.grain,
               [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t task = begin; task < end; ++task) {
        if (s.inner == 1) {
          const int64_t last = std::min((task + 1) * cut.per_piece, s.outer);
          for (int64_t r = task * cut.per_piece; r < last; ++r)
            run_row(x + r * s.channels, bias, at(r * s.channels), s.channels, f, out + r * s.channels);
        } else {
          const int64_t plane = task / cut.pieces, first = task % cut.pieces * cut.per_piece;
          const int64_t i = plane * s.inner + first, n = std::min(cut.per_piece, s.inner - first);
          run_plane(x + i, static_cast<A>(bias[plane % s.channels]), at(i), n, f, out + i);
        }
      }
    });
  });
}

template <typename T>
void run_backward(const Shape& s, const T* grad, const T* y, Factors<opmath_t<T>> f, T* grad_input, T* grad_bias) {
  using A = opmath_t<T>;
  const Cut cut(s);
  const bool rows = s.inner == 1;
  const int64_t groups = rows ? cut.pieces : s.outer * cut.pieces;  // partial sums of each channel
  std::vector<A> partial(groups * s.channels);
  parallel_for(0, rows ? cut.pieces : s.outer * s.channels * cut.pieces, cut.grain, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t task = begin; task < end; ++task) {
        if (rows) {
          const int64_t last = std::min((task + 1) * cut.per_piece, s.outer);
          for (int64_t r = task * cut.per_piece; r < last; ++r)
            backward_row(grad + r * s.channels, y + r * s.channels, s.channels, f, grad_input + r * s.channels,
                         partial.data() + task * s.channels);
        } else {
          const int64_t plane = task / cut.pieces, piece = task % cut.pieces, first = piece * cut.per_piece;
          const int64_t i = plane * s.inner + first, n = std::min(cut.per_piece, s.inner - first);
          const int64_t group = plane / s.channels * cut.pieces + piece;
          partial[group * s.channels + plane % s.channels] = backward_plane(grad + i, y + i, n, f, grad_input + i);
        }
      }
    });
  });
  std::vector<double> sums(s.channels);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t c = 0; c < s.channels; ++c) sums[c] += static_cast<double>(partial[g * s.channels + c]);
  for (int64_t c = 0; c < s.channels; ++c) grad_bias[c] = static_cast<T>(static_cast<A>(sums[c]));
}

Tensor forward_cpu(const Tensor& input, const Tensor& bias, const std::optional<Tensor>& output, double slope,
                   double scale) {
  check(input, bias, output);
  check_numbers(slope, scale);
  const bool nhwc = is_channels_last(input);
  const Tensor x = in_layout(input, nhwc), b = as_contiguous(bias);
  std::optional<Tensor> sign;
  if (output) sign = in_layout(*output, nhwc);
  const Tensor out = empty_with_layout_of(x);
  if (x.numel() == 0) return out;
  dispatch_float(x.scalar_type(), "fused_bias_leakyrelu", [&](auto type) {
    using T = typename decltype(type)::type;
    run<T>(Shape::of(x, nhwc), x.const_data_ptr<T>(), b.const_data_ptr<T>(),
           sign ? sign->const_data_ptr<T>() : nullptr, make_factors<opmath_t<T>>(slope, scale),
           out.mutable_data_ptr<T>());
  });
  return out;
}

std::tuple<Tensor, Tensor> backward_cpu(const Tensor& grad, const Tensor& output, double slope, double scale) {
  check(grad, std::nullopt, output);
  const bool nhwc = is_channels_last(output);
  const Tensor g = in_layout(grad, nhwc), y = in_layout(output, nhwc);
  const Tensor grad_input = empty_with_layout_of(y);
  const Tensor grad_bias = empty_beside(y, {y.size(1)}, y.scalar_type());
  dispatch_float(y.scalar_type(), "fused_bias_leakyrelu_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    run_backward<T>(Shape::of(y, nhwc), g.const_data_ptr<T>(), y.const_data_ptr<T>(),
                    make_factors<opmath_t<T>>(slope, scale), grad_input.mutable_data_ptr<T>(),
                    grad_bias.mutable_data_ptr<T>());
  });
  return {grad_input, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("fused_bias_leakyrelu(Tensor input, Tensor bias, Tensor? output, float slope, float scale) -> Tensor");
  m.def("fused_bias_leakyrelu_backward(Tensor grad, Tensor output, float slope, float scale) -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("fused_bias_leakyrelu", CV_BOX(&forward_cpu));
  m.impl("fused_bias_leakyrelu_backward", CV_BOX(&backward_cpu));
}

}  // namespace cv::fused_bias_leakyrelu
