// mix_orientations on the CPU, and its schema.

#include <algorithm>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/parallel.h"
#include "mix_orientations_args.h"

namespace cv::mix_orientations {
namespace {

template <typename A, typename T>
inline void mix(const T* CV_RESTRICT first, const T* CV_RESTRICT second, A weight_first, A weight_second, int64_t n,
                T* CV_RESTRICT to) {
  for (int64_t i = 0; i < n; ++i)
    to[i] = static_cast<T>(weight_first * static_cast<A>(first[i]) + weight_second * static_cast<A>(second[i]));
}

// from and to (features, orientations, inner)
template <typename A, typename T>
inline void mix_planes(const T* from, const Turn<A> t, const Params p, T* to) {
  const int64_t n = p.orientations, size = n * p.inner;
  for (int64_t f = 0; f < p.features; ++f, from += size, to += size) {
    for (int64_t o = 0; o < n; ++o)
      mix(from + (o + t.first) % n * p.inner, from + (o + t.second) % n * p.inner, t.weight_first, t.weight_second,
          p.inner, to + o * p.inner);
  }
}

// wraps: whether the place that an element is read from lies beyond its feature, so that it is read n before.
template <typename A, typename T>
inline void mix_wrapped(const T* CV_RESTRICT from, const Turn<A> t, const int32_t* CV_RESTRICT wraps_first,
                        const int32_t* CV_RESTRICT wraps_second, int64_t n, int64_t count, T* CV_RESTRICT to) {
  const T *first = from + t.first, *second = from + t.second;
  for (int64_t i = 0; i < count; ++i) {
    const T a = first[i], a_before = first[i - n], b = second[i], b_before = second[i - n];
    to[i] = static_cast<T>(t.weight_first * static_cast<A>(wraps_first[i] ? a_before : a) +
                           t.weight_second * static_cast<A>(wraps_second[i] ? b_before : b));
  }
}

// The same with one inner value: as vectors over some features at once, but for the first and the last feature,
// beside which there are none to read. wraps: (2, features at once, orientations), scratch.
template <typename A, typename T>
inline void mix_channels(const T* from, const Turn<A> t, Params p, int64_t at_once, int32_t* wraps, T* to) {
  const int64_t n = p.orientations, size = at_once * n, last = (p.features - 1) * n;
  for (int64_t i = 0; i < size; ++i) {
    wraps[i] = i % n + t.first >= n;
    wraps[size + i] = i % n + t.second >= n;
  }
  for (int64_t i = n; i < last; i += size)
    mix_wrapped(from + i, t, wraps, wraps + size, n, std::min(size, last - i), to + i);
  p.features = 1;
  mix_planes(from, t, p, to);
  if (last > 0) mix_planes(from + last, t, p, to + last);
}

Tensor mix_orientations_cpu(const Tensor& input, const Tensor& rois, int64_t orientations, bool clockwise,
                            bool transposed) {
  const Params p = make_params(input, rois, orientations, clockwise, transposed);
  const Tensor x = dense(input), boxes = region_tensor(rois, input.scalar_type()), out = new_output(x);
  if (out.numel() == 0) return out;
  dispatch_float(x.scalar_type(), "mix_orientations", [&](auto tag) {
    using T = typename decltype(tag)::type;
    using A = opmath_t<T>;
    const T* from = x.const_data_ptr<T>();
    const A* regions = boxes.const_data_ptr<A>();
    T* to = out.mutable_data_ptr<T>();
    const int64_t size = p.features * p.orientations * p.inner;
    const int64_t at_once = std::min(p.features, (127 + p.orientations) / p.orientations);
    torch::stable::parallel_for(0, p.regions, grain_for(size), [&](int64_t begin, int64_t end) {
      std::vector<int32_t> wraps(p.inner == 1 ? 2 * at_once * p.orientations : 0);
      vectorized([&] {
        for (int64_t k = begin; k < end; ++k) {
          const Turn<A> t = make_turn(regions + 6 * k, p);
          if (p.inner == 1)
            mix_channels(from + k * size, t, p, at_once, wraps.data(), to + k * size);
          else
            mix_planes(from + k * size, t, p, to + k * size);
        }
      });
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("mix_orientations(Tensor input, Tensor rois, int num_orientations, bool clockwise, bool transposed) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("mix_orientations", CV_BOX(&mix_orientations_cpu)); }

}  // namespace cv::mix_orientations
