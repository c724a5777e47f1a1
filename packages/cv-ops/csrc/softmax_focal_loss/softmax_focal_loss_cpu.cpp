// softmax_focal_loss on the CPU, and its schema.
//
// Rows are taken in blocks that stay in the first-level cache. For many classes the forward runs along four rows at
// a time, which share the work of folding their vectors to one number each; for few, the block is turned first, so
// that loops run across its rows. What is left per row (a logarithm, a division) is one more loop across the rows.
// The forward keeps the largest logit of each row and the sum of the other exponentials, so that the backward is one
// pass.

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/vec_math.h"
#include "softmax_focal_loss_args.h"

namespace cv::softmax_focal_loss {
namespace {

constexpr int64_t kBlock = 4096;     // logits
constexpr int64_t kLanes = 16;       // of the longest vector: rows are padded to a multiple
constexpr int64_t kFewClasses = 16;  // up to so many, loops run across rows; one more is at least one vector
constexpr int64_t kRows = 4;         // taken together along rows

constexpr int64_t round_up(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

template <typename T>
struct Rows {
  const T* input;
  const int64_t* target;
  const T* weight;  // or null
  int64_t classes;
};

// Working memory of one block: one number per row, padded to a multiple of kLanes, and what its path needs per logit.
template <typename A>
struct Block {
  bool few_classes;
  int64_t rows_max;
  std::vector<A> logits, factors;  // few classes: rows_max numbers per class; else kRows rows in type A
  std::vector<A> a, gap, label, loss, slope;

  Block(int64_t rows, int64_t classes)
      : few_classes(classes <= kFewClasses),
        rows_max(rows),
        logits((few_classes ? rows : kRows) * classes),
        factors(few_classes ? rows * classes : 0) {
    for (auto* v : {&a, &gap, &label, &loss, &slope}) v->resize(round_up(rows_max));
  }
};

inline bool is_class(int64_t label, int64_t classes) { return label >= 0 && label < classes; }

// n is a multiple of kLanes.
template <typename A>
inline A sum(const A* x, int64_t n) {
  using V = Vec<A>;
  V total = V::load(x);
  for (int64_t i = V::size; i < n; i += V::size) total += V::load(x + i);
  return total.sum();
}

template <typename A>
CV_HD Vec<A> larger(Vec<A> a, Vec<A> b) {
  return Vec<A>{b.v > a.v ? b.v : a.v};
}

// The last vector of a row overlaps the one before, instead of reaching over the end.
template <typename A>
inline void largest_of_rows(const A* const rows[kRows], int64_t n, A max[kRows]) {
  using V = Vec<A>;
  V m[kRows];
  for (int64_t r = 0; r < kRows; ++r) m[r] = V::load(rows[r] + n - V::size);
  for (int64_t c = 0; c + V::size < n; c += V::size)
    for (int64_t r = 0; r < kRows; ++r) m[r] = larger(m[r], V::load(rows[r] + c));
  V::max_each(m, max);
}

// others[r]: the sum of exp(x - max[r]) over the classes that are not labels[r]
template <typename A>
inline void sum_of_rows(const A* const rows[kRows], int64_t n, const int64_t labels[kRows], const A max[kRows],
                        A others[kRows]) {
  using V = Vec<A>;
  const auto lane = Lanes<A>::indices();
  using Lane = typename Lanes<A>::type;
  V sums[kRows] = {V::zero(), V::zero(), V::zero(), V::zero()};
  const auto add = [&](int64_t c, int64_t done) {  // done: so many lanes have been added before
    for (int64_t r = 0; r < kRows; ++r) {
      const V e = exp_of_negative(V{V::load(rows[r] + c).v - max[r]});
      const Lane skip = (lane == Lane{} + static_cast<int32_t>(labels[r] - c)) | (lane < Lane{} + static_cast<int32_t>(done));
      sums[r] += V{skip ? V::zero().v : e.v};
    }
  };
  int64_t c = 0;
  for (; c + V::size <= n; c += V::size) add(c, 0);
  if (c < n) add(n - V::size, c + V::size - n);
  V::sum_each(sums, others);
}

// max and others as in the header, for rows of more than kFewClasses
template <typename T, typename A>
inline void sum_up_along_rows(const T* CV_RESTRICT x, const int64_t* CV_RESTRICT target, int64_t rows, int64_t classes,
                              Block<A>& b, A* CV_RESTRICT max, A* CV_RESTRICT others) {
  for (int64_t first = 0; first < rows; first += kRows) {
    const A* at[kRows];
    int64_t labels[kRows];
    for (int64_t k = 0; k < kRows; ++k) {
      const int64_t r = std::min(first + k, rows - 1);  // past the end, the last row once more
      labels[k] = is_class(target[r], classes) ? target[r] : 0;
      if constexpr (std::is_same_v<T, A>) {
        at[k] = x + r * classes;
      } else {
        A* copy = b.logits.data() + k * classes;
        for (int64_t c = 0; c < classes; ++c) copy[c] = static_cast<A>(x[r * classes + c]);
        at[k] = copy;
      }
    }
    A largest[kRows], sums[kRows];
    largest_of_rows(at, classes, largest);
    sum_of_rows(at, classes, labels, largest, sums);
    for (int64_t k = 0; k < std::min(kRows, rows - first); ++k) {
      max[first + k] = largest[k];
      others[first + k] = sums[k];
      b.gap[first + k] = largest[k] - at[k][labels[k]];
    }
  }
}

template <typename A>
inline void take_larger(A* CV_RESTRICT max, const A* CV_RESTRICT x, int64_t n) {
  for (int64_t r = 0; r < n; ++r) max[r] = x[r] > max[r] ? x[r] : max[r];
}

template <typename A>
inline void add_class(const A* CV_RESTRICT x, const A* CV_RESTRICT max, const A* CV_RESTRICT label, A c, int64_t n,
                      A* CV_RESTRICT gap, A* CV_RESTRICT others) {
  for (int64_t r = 0; r < n; ++r) {
    const A difference = x[r] - max[r];
    const A e = fast_exp(difference);
    const bool hit = label[r] == c;
    gap[r] = hit ? -difference : gap[r];
    others[r] += hit ? A(0) : e;
  }
}

template <typename T, typename A>
inline void sum_up_across_rows(const T* CV_RESTRICT x, int64_t rows, int64_t classes, Block<A>& b, A* CV_RESTRICT max,
                               A* CV_RESTRICT others) {
  A* turned = b.logits.data();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < classes; ++c) turned[c * b.rows_max + r] = static_cast<A>(x[r * classes + c]);
  std::copy(turned, turned + rows, max);
  for (int64_t c = 1; c < classes; ++c) take_larger(max, turned + c * b.rows_max, rows);
  std::fill(others, others + rows, A(0));
  for (int64_t c = 0; c < classes; ++c)
    add_class(turned + c * b.rows_max, max, b.label.data(), static_cast<A>(c), rows, b.gap.data(), others);
}

template <bool kSquare, typename A>
inline void compute_losses(const A* CV_RESTRICT a, const A* CV_RESTRICT gap, const A* CV_RESTRICT others, int64_t n,
                           A gamma, A* CV_RESTRICT out) {
  for (int64_t r = 0; r < n; ++r) out[r] = loss(terms<kSquare>(gap[r], others[r], gamma), a[r]);
}

// a carries the gradient of the loss. factor: of exp(x - m); at_label: the gradient there.
template <bool kSquare, typename A>
inline void compute_slopes(const A* CV_RESTRICT a, const A* CV_RESTRICT gap, const A* CV_RESTRICT others, int64_t n,
                           A gamma, A* CV_RESTRICT factor, A* CV_RESTRICT at_label) {
  for (int64_t r = 0; r < n; ++r) {
    const Terms<A> t = terms<kSquare>(gap[r], others[r], gamma);
    const A d = slope(t, a[r], gamma);
    factor[r] = -d / t.total;
    at_label[r] = d * t.q;
  }
}

// Rows without a label in range are computed as if it were 0, and their results replaced by 0 later.
template <typename T, typename A>
inline void load_labels(const Rows<T>& rows, int64_t begin, int64_t end, A alpha, Block<A>& b) {
  for (int64_t r = 0; r < end - begin; ++r) {
    const int64_t t = rows.target[begin + r];
    const bool known = is_class(t, rows.classes);
    b.label[r] = static_cast<A>(known ? t : 0);  // exact where it is used: for few classes
    b.a[r] = known && rows.weight != nullptr ? alpha * static_cast<A>(rows.weight[t]) : alpha;
  }
}

template <typename T, typename A>
inline void scaled_exponentials(const T* CV_RESTRICT x, A m, A factor, int64_t n, T* CV_RESTRICT out) {
  if constexpr (std::is_same_v<T, A>) {
    using V = Vec<A>;
    const auto store = [&](int64_t i) { (factor * exp_of_negative(V{V::load(x + i).v - m})).store(out + i); };
    for (int64_t i = 0; i + V::size <= n; i += V::size) store(i);
    if (n % V::size != 0) store(n - V::size);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(factor * fast_exp(static_cast<A>(x[i]) - m));
  }
}
template <typename T, typename A>
inline void scaled_exponentials(const A* CV_RESTRICT x, const A* CV_RESTRICT factors, int64_t n, T* CV_RESTRICT out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(factors[i] * fast_exp(x[i]));
}

// b.loss: the factors; b.slope: the gradients at the labels
template <typename T, typename A>
inline void store_gradients(const Rows<T>& rows, int64_t begin, int64_t end, const A* max, Block<A>& b, T* out) {
  const int64_t n = end - begin, classes = rows.classes;
  const T* x = rows.input + begin * classes;
  out += begin * classes;
  if (b.few_classes) {
    for (int64_t r = 0; r < n; ++r)
      for (int64_t c = 0; c < classes; ++c) {
        b.logits[r * classes + c] = static_cast<A>(x[r * classes + c]) - max[r];
        b.factors[r * classes + c] = b.loss[r];
      }
    scaled_exponentials(b.logits.data(), b.factors.data(), n * classes, out);
  }
  for (int64_t r = 0; r < n; ++r) {
    const int64_t t = rows.target[begin + r];
    T* row = out + r * classes;
    if (!is_class(t, classes)) {
      std::fill(row, row + classes, T(0));
      continue;
    }
    if (!b.few_classes) scaled_exponentials(x + r * classes, max[r], b.loss[r], classes, row);
    row[t] = static_cast<T>(b.slope[r]);
  }
}

int64_t rows_per_block(int64_t n, int64_t classes) {
  const int64_t most =
      classes <= kFewClasses ? kBlock / kFewClasses : std::max(kRows, kBlock / classes / kRows * kRows);
  return std::clamp<int64_t>(n, 1, most);
}
int64_t block_count(int64_t n, int64_t rows_max) { return (n + rows_max - 1) / rows_max; }

// visit(block index, first row, last row, block) for all blocks of rows, in parallel. Blocks depend on the
// shape alone, so sums do not depend on the number of threads.
template <typename T, typename F>
void for_each_block(const Rows<T>& rows, int64_t n, double alpha, F&& visit) {
  using A = opmath_t<T>;
  const int64_t rows_max = rows_per_block(n, rows.classes);
  torch::stable::parallel_for(0, block_count(n, rows_max), 2, [&](int64_t block_begin, int64_t block_end) {
    Block<A> b(rows_max, rows.classes);
    for (int64_t block = block_begin; block < block_end; ++block) {
      const int64_t begin = block * rows_max, end = std::min(begin + rows_max, n);
      vectorized([&] {
        load_labels(rows, begin, end, static_cast<A>(alpha), b);
        visit(block, begin, end, b);
      });
    }
  });
}

// Losses of rows [begin, end) in b.loss, followed by zeros up to a multiple of kLanes.
template <bool kSquare, typename T, typename A>
inline void forward_block(const Rows<T>& rows, int64_t begin, int64_t end, A gamma, Block<A>& b, A* max, A* others) {
  const int64_t n = end - begin;
  const T* x = rows.input + begin * rows.classes;
  if (b.few_classes) {
    sum_up_across_rows(x, n, rows.classes, b, max + begin, others + begin);
  } else {
    sum_up_along_rows(x, rows.target + begin, n, rows.classes, b, max + begin, others + begin);
  }
  compute_losses<kSquare>(b.a.data(), b.gap.data(), others + begin, n, gamma, b.loss.data());
  for (int64_t r = 0; r < n; ++r)
    if (!is_class(rows.target[begin + r], rows.classes)) b.loss[r] = A(0);
  std::fill(b.loss.begin() + n, b.loss.begin() + round_up(n), A(0));
}

// stats: (2, n), max and others. out: one loss per row, or, if null, their sum is returned.
template <bool kSquare, typename T>
double forward_all(const Rows<T>& rows, int64_t n, double alpha, double gamma, opmath_t<T>* stats, T* out) {
  using A = opmath_t<T>;
  std::vector<double> partial(block_count(n, rows_per_block(n, rows.classes)));
  for_each_block(rows, n, alpha, [&](int64_t block, int64_t begin, int64_t end, Block<A>& b) {
    forward_block<kSquare>(rows, begin, end, static_cast<A>(gamma), b, stats, stats + n);
    if (out == nullptr) {
      partial[block] = static_cast<double>(sum(b.loss.data(), round_up(end - begin)));
    } else {
      for (int64_t r = 0; r < end - begin; ++r) out[begin + r] = static_cast<T>(b.loss[r]);
    }
  });
  double total = 0;
  for (double p : partial) total += p;
  return total;
}

// grad: one per row, or null for a single one, which scale then holds
template <bool kSquare, typename T>
void backward_all(const Rows<T>& rows, int64_t n, double alpha, double gamma, const opmath_t<T>* stats, const T* grad,
                  double scale, T* out) {
  using A = opmath_t<T>;
  for_each_block(rows, n, alpha, [&](int64_t, int64_t begin, int64_t end, Block<A>& b) {
    const A *max = stats + begin, *others = stats + n + begin;
    for (int64_t r = 0; r < end - begin; ++r) {
      const int64_t t = rows.target[begin + r];
      b.gap[r] = max[r] - static_cast<A>(rows.input[(begin + r) * rows.classes + (is_class(t, rows.classes) ? t : 0)]);
      b.a[r] *= grad == nullptr ? static_cast<A>(scale) : static_cast<A>(grad[begin + r]);
    }
    compute_slopes<kSquare>(b.a.data(), b.gap.data(), others, end - begin, static_cast<A>(gamma), b.loss.data(),
                            b.slope.data());
    store_gradients(rows, begin, end, max, b, out);
  });
}

template <typename T>
Rows<T> rows_of(const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight) {
  return {input.const_data_ptr<T>(), target.const_data_ptr<int64_t>(), weight ? weight->const_data_ptr<T>() : nullptr,
          input.size(1)};
}

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
                                       double gamma, double alpha, int64_t reduction) {
  check(input, target, weight, gamma);
  const Tensor x = as_contiguous(input), t = as_contiguous(target);
  const std::optional<Tensor> w = contiguous_or_none(weight);
  const int64_t n = x.size(0);
  Tensor out = empty_loss(x, reduction), stats = empty_stats(x);
  dispatch_float(x.scalar_type(), "softmax_focal_loss", [&](auto type) {
    using T = typename decltype(type)::type;
    T* op = out.mutable_data_ptr<T>();
    opmath_t<T>* sp = stats.mutable_data_ptr<opmath_t<T>>();
    if (x.numel() == 0) {  // no classes: no label is one
      std::fill(op, op + out.numel(), T(0));
      std::fill(sp, sp + stats.numel(), opmath_t<T>(0));
      return;
    }
    const double total = (gamma == 2 ? forward_all<true, T> : forward_all<false, T>)(
        rows_of<T>(x, t, w), n, alpha, gamma, sp, reduction == kNone ? op : nullptr);
    if (reduction != kNone) *op = static_cast<T>(static_cast<opmath_t<T>>(total * reduction_scale(reduction, n)));
  });
  return {std::move(out), std::move(stats)};
}

Tensor backward_cpu(const Tensor& grad, const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
                    const Tensor& stats, double gamma, double alpha, int64_t reduction) {
  check(input, target, weight, gamma);
  check_backward(grad, stats, input, reduction);
  const Tensor g = as_contiguous(grad), x = as_contiguous(input), t = as_contiguous(target), s = as_contiguous(stats);
  const std::optional<Tensor> w = contiguous_or_none(weight);
  const int64_t n = x.size(0);
  const Tensor out = empty_beside(x, {n, x.size(1)}, x.scalar_type());
  if (x.numel() == 0) return out;
  dispatch_float(x.scalar_type(), "softmax_focal_loss_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    const T* gp = g.const_data_ptr<T>();
    const bool by_row = reduction == kNone;
    const double scale = by_row ? 1.0 : static_cast<double>(*gp) * reduction_scale(reduction, n);
    (gamma == 2 ? backward_all<true, T> : backward_all<false, T>)(
        rows_of<T>(x, t, w), n, alpha, gamma, s.const_data_ptr<opmath_t<T>>(), by_row ? gp : nullptr, scale,
        out.mutable_data_ptr<T>());
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  // The second result is for the backward: (2, N), the largest logit of each row and the sum of exp(x - largest)
  // over the classes that are not the label.
  m.def("softmax_focal_loss(Tensor input, Tensor target, Tensor? weight, float gamma, float alpha, int reduction)"
        " -> (Tensor, Tensor)");
  m.def("softmax_focal_loss_backward(Tensor grad, Tensor input, Tensor target, Tensor? weight, Tensor stats, "
        "float gamma, float alpha, int reduction) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("softmax_focal_loss", CV_BOX(&forward_cpu));
  m.impl("softmax_focal_loss_backward", CV_BOX(&backward_cpu));
}

}  // namespace cv::softmax_focal_loss
