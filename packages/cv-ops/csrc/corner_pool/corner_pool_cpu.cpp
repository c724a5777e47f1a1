// corner_pool on the CPU, and its schema.
//
// Where a line's elements lie apart, the loops run across lines. Where they are neighbours (inner == 1), kTogether
// lines advance in step, so that one maximum need not wait for another. Both are bound by memory.

#include <algorithm>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/parallel.h"
#include "corner_pool.h"
#include "corner_pool_args.h"

namespace cv::corner_pool {
namespace {

constexpr int64_t kAcross = 512;  // lines of a task
constexpr int64_t kTogether = 8;

template <typename T, typename A>
inline void maximum_step(const T* CV_RESTRICT x, T* CV_RESTRICT out, A* CV_RESTRICT m, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const A v = static_cast<A>(x[i]);
    m[i] = is_record(v, m[i]) ? v : m[i];
    out[i] = static_cast<T>(m[i]);
  }
}

// From the last position of the lines to the first: sum collects gradients until a record takes them.
template <typename T, typename A>
inline void gradient_step(const T* CV_RESTRICT grad, const T* CV_RESTRICT x, const T* CV_RESTRICT out,
                          T* CV_RESTRICT grad_x, A* CV_RESTRICT sum, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const A total = sum[i] + static_cast<A>(grad[i]);
    const bool record = was_record(static_cast<A>(x[i]), static_cast<A>(out[i]));
    grad_x[i] = static_cast<T>(record ? total : A(0));
    sum[i] = record ? A(0) : total;
  }
}

// kTogether lines whose elements are neighbours
template <typename T, typename A>
inline void maxima_together(const T* CV_RESTRICT x, T* CV_RESTRICT out, int64_t length, int64_t start, int64_t step) {
  A m[kTogether];
  for (int64_t k = 0; k < kTogether; ++k) m[k] = static_cast<A>(x[k * length + start]);
  for (int64_t j = 0, at = start; j < length; ++j, at += step)
    for (int64_t k = 0; k < kTogether; ++k) {
      const A v = static_cast<A>(x[k * length + at]);
      m[k] = is_record(v, m[k]) ? v : m[k];
      out[k * length + at] = static_cast<T>(m[k]);
    }
}
template <typename T, typename A>
inline void gradients_together(const T* CV_RESTRICT grad, const T* CV_RESTRICT x, const T* CV_RESTRICT out,
                               T* CV_RESTRICT grad_x, int64_t length, int64_t start, int64_t step) {
  A sum[kTogether] = {};
  for (int64_t j = 0, at = start; j < length; ++j, at += step)
    for (int64_t k = 0; k < kTogether; ++k) {
      const int64_t i = k * length + at;
      const A total = sum[k] + static_cast<A>(grad[i]);
      const bool record = was_record(static_cast<A>(x[i]), static_cast<A>(out[i]));
      grad_x[i] = static_cast<T>(record ? total : A(0));
      sum[k] = record ? A(0) : total;
    }
}

// across(offset of the first of n neighbouring lines, n) or, for inner == 1, together(first of kTogether lines),
// in parallel.
template <typename Across, typename Together>
void for_each_task(const Lines& lines, Across&& across, Together&& together) {
  if (lines.inner == 1) {
    const int64_t whole = lines.outer / kTogether;
    torch::stable::parallel_for(0, whole + 1, std::max<int64_t>(1, 4096 / lines.length), [&](int64_t b, int64_t e) {
      vectorized([&] {
        for (int64_t task = b; task < e; ++task) {
          if (task < whole) {
            together(task * kTogether * lines.length);
          } else {
            for (int64_t line = whole * kTogether; line < lines.outer; ++line) across(line * lines.length, 1);
          }
        }
      });
    });
    return;
  }
  const int64_t pieces = (lines.inner + kAcross - 1) / kAcross;
  const int64_t grain = grain_for(lines.length * std::min(kAcross, lines.inner));
  torch::stable::parallel_for(0, lines.outer * pieces, grain, [&](int64_t b, int64_t e) {
    vectorized([&] {
      for (int64_t task = b; task < e; ++task) {
        const int64_t first = task % pieces * kAcross;
        across(task / pieces * lines.length * lines.inner + first, std::min(kAcross, lines.inner - first));
      }
    });
  });
}

template <typename T>
void forward(const T* x, T* out, const Lines& lines, bool reverse) {
  using A = opmath_t<T>;
  const int64_t start = reverse ? lines.length - 1 : 0, step = reverse ? -1 : 1;
  for_each_task(
      lines,
      [&](int64_t offset, int64_t n) {
        A m[kAcross];
        const T* first = x + offset + start * lines.inner;
        for (int64_t i = 0; i < n; ++i) m[i] = static_cast<A>(first[i]);
        for (int64_t j = 0, at = start; j < lines.length; ++j, at += step)
          maximum_step(x + offset + at * lines.inner, out + offset + at * lines.inner, m, n);
      },
      [&](int64_t offset) { maxima_together<T, A>(x + offset, out + offset, lines.length, start, step); });
}

template <typename T>
void backward(const T* grad, const T* x, const T* out, T* grad_x, const Lines& lines, bool reverse) {
  using A = opmath_t<T>;
  const int64_t start = reverse ? 0 : lines.length - 1, step = reverse ? 1 : -1;
  for_each_task(
      lines,
      [&](int64_t offset, int64_t n) {
        A sum[kAcross] = {};
        for (int64_t j = 0, at = start; j < lines.length; ++j, at += step) {
          const int64_t i = offset + at * lines.inner;
          gradient_step(grad + i, x + i, out + i, grad_x + i, sum, n);
        }
      },
      [&](int64_t offset) {
        gradients_together<T, A>(grad + offset, x + offset, out + offset, grad_x + offset, lines.length, start, step);
      });
}

Tensor forward_cpu(const Tensor& input, int64_t dim, bool reverse) {
  check(input, dim);
  const bool nhwc = is_channels_last(input);
  const Tensor x = in_layout(input, nhwc), out = empty_like(x, nhwc);
  if (x.numel() == 0) return out;
  dispatch_float(x.scalar_type(), "corner_pool", [&](auto type) {
    using T = typename decltype(type)::type;
    forward(x.const_data_ptr<T>(), out.mutable_data_ptr<T>(), lines_of(x, dim, nhwc), reverse);
  });
  return out;
}

Tensor backward_cpu(const Tensor& grad, const Tensor& input, const Tensor& output, int64_t dim, bool reverse) {
  check(input, dim);
  check_backward(grad, input, output);
  const bool nhwc = is_channels_last(input);
  const Tensor g = in_layout(grad, nhwc), x = in_layout(input, nhwc), y = in_layout(output, nhwc);
  const Tensor grad_x = empty_like(x, nhwc);
  if (x.numel() == 0) return grad_x;
  dispatch_float(x.scalar_type(), "corner_pool_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    backward(g.const_data_ptr<T>(), x.const_data_ptr<T>(), y.const_data_ptr<T>(), grad_x.mutable_data_ptr<T>(),
             lines_of(x, dim, nhwc), reverse);
  });
  return grad_x;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("corner_pool(Tensor input, int dim, bool reverse) -> Tensor");
  m.def("corner_pool_backward(Tensor grad, Tensor input, Tensor output, int dim, bool reverse) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("corner_pool", CV_BOX(&forward_cpu));
  m.impl("corner_pool_backward", CV_BOX(&backward_cpu));
}

}  // namespace cv::corner_pool
