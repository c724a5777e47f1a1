// sigmoid_focal_loss on the CPU, and its schema.
//
// Rows are taken in blocks of about 2048 logits. A block is first brought into the form z, a (see the
// header), where at most one logit per row is a positive; the transcendental part is then one flat,
// vectorised loop, however many or few classes there are.

#include <algorithm>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "sigmoid_focal_loss_args.h"

namespace cv::sigmoid_focal_loss {
namespace {

constexpr int64_t kBlock = 2048;
constexpr int kLanes = 16;  // partial sums: the compiler may not reorder one sum, but it may do 16 at once

template <typename T>
struct Rows {
  const T* input;
  const int64_t* target;
  const T* weight;  // or null
  int64_t classes;
};

// z and a of rows [begin, end); with kSigned, a carries dz/dx. A label outside [0, classes) makes all
// classes of its row negatives, of weight 1.
template <bool kSigned, typename T, typename A>
inline void prepare(const Rows<T>& rows, int64_t begin, int64_t end, A alpha, A* CV_RESTRICT z, A* CV_RESTRICT a) {
  const int64_t classes = rows.classes, n = (end - begin) * classes;
  const T* x = rows.input + begin * classes;
  const A negative = kSigned ? alpha - A(1) : A(1) - alpha;
  for (int64_t i = 0; i < n; ++i) z[i] = -static_cast<A>(x[i]);
  for (int64_t i = 0; i < n; ++i) a[i] = negative;
  for (int64_t r = 0; r < end - begin; ++r) {
    const int64_t t = rows.target[begin + r];
    if (t < 0 || t >= classes) continue;
    const A w = rows.weight != nullptr ? static_cast<A>(rows.weight[t]) : A(1);
    A *z_row = z + r * classes, *a_row = a + r * classes;
    if (rows.weight != nullptr)
      for (int64_t c = 0; c < classes; ++c) a_row[c] = negative * w;
    z_row[t] = -z_row[t];
    a_row[t] = alpha * w;
  }
}

template <bool kSquare, typename T, typename A>
inline void store_losses(const A* CV_RESTRICT z, const A* CV_RESTRICT a, int64_t n, A gamma, T* CV_RESTRICT out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(loss<kSquare>(z[i], a[i], gamma));
}

// n is a multiple of kLanes: the caller has padded with a = 0.
template <bool kSquare, typename A>
inline double sum_losses(const A* CV_RESTRICT z, const A* CV_RESTRICT a, int64_t n, A gamma) {
  A lanes[kLanes] = {};
  for (int64_t i = 0; i < n; i += kLanes)
    for (int k = 0; k < kLanes; ++k) lanes[k] += loss<kSquare>(z[i + k], a[i + k], gamma);
  double sum = 0;
  for (A lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

template <bool kSquare, typename T, typename A>
inline void store_derivatives(const A* CV_RESTRICT z, const A* CV_RESTRICT a, const T* CV_RESTRICT grad, A scale,
                              int64_t n, A gamma, T* CV_RESTRICT out) {
  if (grad == nullptr) {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(loss_derivative<kSquare>(z[i], a[i], gamma) * scale);
  } else {
    for (int64_t i = 0; i < n; ++i)
      out[i] = static_cast<T>(loss_derivative<kSquare>(z[i], a[i], gamma) * (static_cast<A>(grad[i]) * scale));
  }
}

// visit(block index, first row, last row, z, a) for all blocks of rows, in parallel. Blocks depend on the
// shape alone, so sums do not depend on the number of threads.
template <bool kSigned, typename T, typename F>
void for_each_block(const Rows<T>& rows, int64_t n, double alpha, F&& visit) {
  using A = opmath_t<T>;
  const int64_t rows_per_block = std::max<int64_t>(1, kBlock / std::max<int64_t>(rows.classes, 1));
  const int64_t blocks = (n + rows_per_block - 1) / rows_per_block;
  torch::stable::parallel_for(0, blocks, 4, [&](int64_t block_begin, int64_t block_end) {
    std::vector<A> z(std::min(rows_per_block, n) * rows.classes + kLanes), a(z.size());
    for (int64_t block = block_begin; block < block_end; ++block) {
      const int64_t begin = block * rows_per_block, end = std::min(begin + rows_per_block, n);
      vectorized([&] {
        prepare<kSigned>(rows, begin, end, A(alpha), z.data(), a.data());
        visit(block, begin, end, z.data(), a.data());
      });
    }
  });
}

template <typename T>
Rows<T> rows_of(const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight) {
  return {input.const_data_ptr<T>(), target.const_data_ptr<int64_t>(), weight ? weight->const_data_ptr<T>() : nullptr,
          input.size(1)};
}

template <bool kSquare, typename T>
void store_all(const Rows<T>& rows, int64_t n, double alpha, double gamma, T* out) {
  using A = opmath_t<T>;
  for_each_block<false>(rows, n, alpha, [&](int64_t, int64_t begin, int64_t end, const A* z, const A* a) {
    store_losses<kSquare>(z, a, (end - begin) * rows.classes, A(gamma), out + begin * rows.classes);
  });
}

template <bool kSquare, typename T>
double sum_all(const Rows<T>& rows, int64_t n, double alpha, double gamma) {
  using A = opmath_t<T>;
  const int64_t rows_per_block = std::max<int64_t>(1, kBlock / std::max<int64_t>(rows.classes, 1));
  std::vector<double> partial((n + rows_per_block - 1) / rows_per_block);
  for_each_block<false>(rows, n, alpha, [&](int64_t block, int64_t begin, int64_t end, A* z, A* a) {
    const int64_t count = (end - begin) * rows.classes, padded = (count + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = count; i < padded; ++i) z[i] = a[i] = A(0);
    partial[block] = sum_losses<kSquare>(z, a, padded, A(gamma));
  });
  double sum = 0;
  for (double p : partial) sum += p;
  return sum;
}

template <bool kSquare, typename T>
void store_all_derivatives(const Rows<T>& rows, int64_t n, double alpha, double gamma, const T* grad, double scale,
                           T* out) {
  using A = opmath_t<T>;
  for_each_block<true>(rows, n, alpha, [&](int64_t, int64_t begin, int64_t end, const A* z, const A* a) {
    const int64_t first = begin * rows.classes;
    store_derivatives<kSquare>(z, a, grad == nullptr ? grad : grad + first, A(scale), (end - begin) * rows.classes,
                               A(gamma), out + first);
  });
}

std::optional<Tensor> contiguous_or_none(const std::optional<Tensor>& t) {
  return t ? std::optional<Tensor>(as_contiguous(*t)) : std::nullopt;
}

Tensor forward_cpu(const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight, double gamma,
                   double alpha, int64_t reduction) {
  check(input, target, weight, gamma);
  const Tensor x = as_contiguous(input), t = as_contiguous(target);
  const std::optional<Tensor> w = contiguous_or_none(weight);
  const int64_t n = x.size(0);
  const Tensor out = reduction == kNone ? empty_beside(x, {n, x.size(1)}, x.scalar_type())
                                        : empty_beside(x, {}, x.scalar_type());
  dispatch_float(x.scalar_type(), "sigmoid_focal_loss", [&](auto type) {
    using T = typename decltype(type)::type;
    const Rows<T> rows = rows_of<T>(x, t, w);
    T* op = out.mutable_data_ptr<T>();
    if (reduction == kNone) {
      (gamma == 2 ? store_all<true, T> : store_all<false, T>)(rows, n, alpha, gamma, op);
    } else {
      const double sum = (gamma == 2 ? sum_all<true, T> : sum_all<false, T>)(rows, n, alpha, gamma);
      *op = static_cast<T>(static_cast<opmath_t<T>>(sum * reduction_scale(reduction, n)));
    }
  });
  return out;
}

Tensor backward_cpu(const Tensor& grad, const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
                    double gamma, double alpha, int64_t reduction) {
  check(input, target, weight, gamma);
  check_grad(grad, input, reduction);
  const Tensor g = as_contiguous(grad), x = as_contiguous(input), t = as_contiguous(target);
  const std::optional<Tensor> w = contiguous_or_none(weight);
  const int64_t n = x.size(0);
  const Tensor out = empty_beside(x, {n, x.size(1)}, x.scalar_type());
  dispatch_float(x.scalar_type(), "sigmoid_focal_loss_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    const Rows<T> rows = rows_of<T>(x, t, w);
    const T* gp = g.const_data_ptr<T>();
    const bool elementwise = reduction == kNone;
    const double scale = elementwise ? 1.0 : static_cast<double>(*gp) * reduction_scale(reduction, n);
    (gamma == 2 ? store_all_derivatives<true, T> : store_all_derivatives<false, T>)(
        rows, n, alpha, gamma, elementwise ? gp : nullptr, scale, out.mutable_data_ptr<T>());
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("sigmoid_focal_loss(Tensor input, Tensor target, Tensor? weight, float gamma, float alpha, int reduction)"
        " -> Tensor");
  m.def("sigmoid_focal_loss_backward(Tensor grad, Tensor input, Tensor target, Tensor? weight, float gamma, "
        "float alpha, int reduction) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("sigmoid_focal_loss", CV_BOX(&forward_cpu));
  m.impl("sigmoid_focal_loss_backward", CV_BOX(&backward_cpu));
}

}  // namespace cv::sigmoid_focal_loss
