// chamfer_distance on the CPU, and its schema. 32 points at a time look for their nearest, each in its own lane.

#include <atomic>
#include <limits>
#include <tuple>
#include <type_traits>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/parallel.h"
#include "chamfer_distance_args.h"

namespace cv::chamfer_distance {
namespace {

constexpr int64_t kLanes = 32;

// The nearest of the n points of `to` for each of the points of `from`; count <= kLanes.
template <typename A>
inline void nearest(const A* from, int64_t count, const A* to, int64_t n, A* distances, int32_t* indices) {
  using Index = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;  // as wide as a lane
  A x[kLanes], y[kLanes], best[kLanes];
  Index which[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    const int64_t k = i < count ? i : 0;
    x[i] = from[2 * k], y[i] = from[2 * k + 1];
    best[i] = std::numeric_limits<A>::quiet_NaN(), which[i] = 0;
  }
  for (int64_t j = 0; j < n; ++j) {
    const A to_x = to[2 * j], to_y = to[2 * j + 1];
    const Index number = static_cast<Index>(j);
    for (int64_t i = 0; i < kLanes; ++i) {
      const A d = squared_distance(x[i], y[i], to_x, to_y);
      const bool take = is_nearer(d, best[i]);
      best[i] = take ? d : best[i];
      which[i] = take ? number : which[i];
    }
  }
  for (int64_t i = 0; i < count; ++i) distances[i] = best[i], indices[i] = static_cast<int32_t>(which[i]);
}

// from (B, n, 2), to (B, m, 2)
template <typename A>
void all_nearest(const A* from, int64_t n, const A* to, int64_t m, int64_t batch, A* distances, int32_t* indices) {
  const int64_t blocks = (n + kLanes - 1) / kLanes;
  torch::stable::parallel_for(0, batch * blocks, grain_for(kLanes * m), [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task / blocks, first = task % blocks * kLanes, count = n - first < kLanes ? n - first : kLanes;
        nearest(from + 2 * (b * n + first), count, to + 2 * b * m, m, distances + b * n + first,
                indices + b * n + first);
      }
    });
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> chamfer_distance_cpu(const Tensor& xyz1, const Tensor& xyz2) {
  const Sizes s = check(xyz1, xyz2);
  const Tensor a = as_contiguous(to_opmath(xyz1)), b = as_contiguous(to_opmath(xyz2));
  const Tensor distance1 = empty_beside(a, {s.batch, s.first}, a.scalar_type());
  const Tensor distance2 = empty_beside(a, {s.batch, s.second}, a.scalar_type());
  const Tensor index1 = empty_beside(a, {s.batch, s.first}, ScalarType::Int);
  const Tensor index2 = empty_beside(a, {s.batch, s.second}, ScalarType::Int);
  if (distance1.numel() > 0) {
    dispatch_float_double(a.scalar_type(), "chamfer_distance", [&](auto t) {
      using A = typename decltype(t)::type;
      const A *ap = a.const_data_ptr<A>(), *bp = b.const_data_ptr<A>();
      all_nearest(ap, s.first, bp, s.second, s.batch, distance1.mutable_data_ptr<A>(),
                  index1.mutable_data_ptr<int32_t>());
      all_nearest(bp, s.second, ap, s.first, s.batch, distance2.mutable_data_ptr<A>(),
                  index2.mutable_data_ptr<int32_t>());
    });
  }
  return {to_dtype(distance1, xyz1.scalar_type()), to_dtype(distance2, xyz1.scalar_type()), index1, index2};
}

// Each distance pulls at its point and pushes at the nearest one. For a pair of sets; false: an index out of range.
template <typename A>
bool spread(const A* grad, const int32_t* indices, const A* from, int64_t n, const A* to, int64_t m, A* grad_from,
            A* grad_to) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t k = indices[i];
    if (k < 0 || k >= m) return false;
    for (int64_t c = 0; c < 2; ++c) {
      const A g = A(2) * grad[i] * (from[2 * i + c] - to[2 * k + c]);
      grad_from[2 * i + c] += g, grad_to[2 * k + c] -= g;
    }
  }
  return true;
}

std::tuple<Tensor, Tensor> chamfer_distance_backward_cpu(const Tensor& grad1, const Tensor& grad2, const Tensor& xyz1,
                                                         const Tensor& xyz2, const Tensor& index1,
                                                         const Tensor& index2) {
  const Sizes s = check_backward(grad1, grad2, xyz1, xyz2, index1, index2);
  const Tensor a = as_contiguous(to_opmath(xyz1)), b = as_contiguous(to_opmath(xyz2));
  const Tensor g1 = as_contiguous(to_opmath(grad1)), g2 = as_contiguous(to_opmath(grad2));
  const Tensor i1 = as_contiguous(index1), i2 = as_contiguous(index2);
  Tensor out1 = empty_beside(a, {s.batch, s.first, 2}, a.scalar_type());
  Tensor out2 = empty_beside(a, {s.batch, s.second, 2}, a.scalar_type());
  zero_(out1), zero_(out2);
  dispatch_float_double(a.scalar_type(), "chamfer_distance_backward", [&](auto t) {
    using A = typename decltype(t)::type;
    const A *ap = a.const_data_ptr<A>(), *bp = b.const_data_ptr<A>();
    const A *g1p = g1.const_data_ptr<A>(), *g2p = g2.const_data_ptr<A>();
    const int32_t *i1p = i1.const_data_ptr<int32_t>(), *i2p = i2.const_data_ptr<int32_t>();
    A *out1p = out1.mutable_data_ptr<A>(), *out2p = out2.mutable_data_ptr<A>();
    std::atomic<bool> valid{true};
    torch::stable::parallel_for(0, s.batch, grain_for(8 * (s.first + s.second)), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t at1 = k * s.first, at2 = k * s.second;
        const bool inside = spread(g1p + at1, i1p + at1, ap + 2 * at1, s.first, bp + 2 * at2, s.second, out1p + 2 * at1,
                                   out2p + 2 * at2) &&
                            spread(g2p + at2, i2p + at2, bp + 2 * at2, s.second, ap + 2 * at1, s.first, out2p + 2 * at2,
                                   out1p + 2 * at1);
        if (!inside) valid = false;
      }
    });
    STD_TORCH_CHECK(valid, "chamfer_distance_backward: indices must name points of the other set");
  });
  return {to_dtype(out1, xyz1.scalar_type()), to_dtype(out2, xyz1.scalar_type())};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("chamfer_distance(Tensor xyz1, Tensor xyz2) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("chamfer_distance_backward(Tensor grad1, Tensor grad2, Tensor xyz1, Tensor xyz2, Tensor index1, Tensor index2)"
        " -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("chamfer_distance", CV_BOX(&chamfer_distance_cpu));
  m.impl("chamfer_distance_backward", CV_BOX(&chamfer_distance_backward_cpu));
}

}  // namespace cv::chamfer_distance
