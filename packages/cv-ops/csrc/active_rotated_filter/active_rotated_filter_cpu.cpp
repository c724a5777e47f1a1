// active_rotated_filter on the CPU, and its schema: copies through a table, which is made once.

#include <algorithm>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/parallel.h"
#include "active_rotated_filter_args.h"

namespace cv::active_rotated_filter {
namespace {

struct Tables {
  std::vector<int32_t> sources, targets;
  bool permutation;

  Tables(const Tensor& indices, const Sizes& s) : sources(s.table()), targets(s.table()) {
    const Tensor dense = as_contiguous(indices);
    const int32_t* values = dense.const_data_ptr<int32_t>();
    for (int64_t r = 0; r < s.rotations; ++r)
      STD_TORCH_CHECK(fill_tables(values, r, s, sources.data(), targets.data()),
                      "active_rotated_filter: indices must be within [1, ", s.entries, "]");
    permutation = std::count(sources.begin(), sources.end(), -1) == 0;
  }
};

template <bool kPermutation, typename T>
inline void gather(const T* CV_RESTRICT from, const int32_t* CV_RESTRICT table, int64_t n, T* CV_RESTRICT to) {
  for (int64_t i = 0; i < n; ++i) to[i] = kPermutation || table[i] >= 0 ? from[table[i]] : T(0);
}

template <bool kPermutation, typename A, typename T>
inline void gather_add(const T* CV_RESTRICT from, const int32_t* CV_RESTRICT table, int64_t n, A* CV_RESTRICT to) {
  for (int64_t i = 0; i < n; ++i)
    if (kPermutation || table[i] >= 0) to[i] += static_cast<A>(from[table[i]]);
}

Tensor active_rotated_filter_cpu(const Tensor& input, const Tensor& indices) {
  const Sizes s = forward_sizes(input, indices);
  const Tensor x = as_contiguous(input), out = new_output(x, s);
  const Tables tables(indices, s);
  if (out.numel() == 0) return out;
  dispatch_float(x.scalar_type(), "active_rotated_filter", [&](auto t) {
    using T = typename decltype(t)::type;
    const T* from = x.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    const int64_t filter = s.inputs * s.entries;
    torch::stable::parallel_for(0, s.outputs * s.rotations, grain_for(filter), [&](int64_t begin, int64_t end) {
      vectorized([&] {
        for (int64_t row = begin; row < end; ++row) {
          const int32_t* table = tables.sources.data() + row % s.rotations * s.entries;
          for (int64_t i = 0; i < filter; i += s.entries)
            (tables.permutation ? gather<true, T> : gather<false, T>)(from + row / s.rotations * filter + i, table,
                                                                      s.entries, to + row * filter + i);
        }
      });
    });
  });
  return out;
}

Tensor active_rotated_filter_backward_cpu(const Tensor& grad, const Tensor& indices) {
  const Sizes s = backward_sizes(grad, indices);
  const Tensor g = as_contiguous(grad), out = new_gradient(g, indices, s);
  const Tables tables(indices, s);
  if (out.numel() == 0) return out;
  dispatch_float(g.scalar_type(), "active_rotated_filter_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const T* from = g.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    const int64_t grain = grain_for(s.table());
    torch::stable::parallel_for(0, s.outputs * s.inputs, grain, [&](int64_t begin, int64_t end) {
      std::vector<A> sum(s.entries);
      vectorized([&] {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t o = row / s.inputs, i = row - o * s.inputs;
          std::fill(sum.begin(), sum.end(), A(0));
          for (int64_t r = 0; r < s.rotations; ++r)
            (tables.permutation ? gather_add<true, A, T> : gather_add<false, A, T>)(
                from + ((o * s.rotations + r) * s.inputs + i) * s.entries, tables.targets.data() + r * s.entries,
                s.entries, sum.data());
          for (int64_t e = 0; e < s.entries; ++e) to[row * s.entries + e] = static_cast<T>(sum[e]);
        }
      });
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("active_rotated_filter(Tensor input, Tensor indices) -> Tensor");
  m.def("active_rotated_filter_backward(Tensor grad, Tensor indices) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("active_rotated_filter", CV_BOX(&active_rotated_filter_cpu));
  m.impl("active_rotated_filter_backward", CV_BOX(&active_rotated_filter_backward_cpu));
}

}  // namespace cv::active_rotated_filter
