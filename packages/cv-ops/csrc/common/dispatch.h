#pragma once
// From a runtime dtype (or size) to a template argument. Function templates and generic lambdas, so
// commas in the body need no care and every operator gives the same error text:
//
//   dispatch_float(x.scalar_type(), "roi_align", [&](auto t) {
//     using scalar_t = typename decltype(t)::type;
//     ...
//   });

#include <limits>

#include "torch_stable.h"

namespace cv {

template <typename T> struct tag { using type = T; };

template <typename F>
inline void dispatch_float(ScalarType t, const char* name, F&& f) {
  switch (t) {
    case ScalarType::Float: return f(tag<float>{});
    case ScalarType::Double: return f(tag<double>{});
    case ScalarType::Half: return f(tag<Half>{});
    case ScalarType::BFloat16: return f(tag<BFloat16>{});
    default: STD_TORCH_CHECK(false, name, " is not implemented for ", torch::headeronly::toString(t));
  }
}

// float32 and float64 only: for kernels that take half types through to_opmath().
template <typename F>
inline void dispatch_float_double(ScalarType t, const char* name, F&& f) {
  switch (t) {
    case ScalarType::Float: return f(tag<float>{});
    case ScalarType::Double: return f(tag<double>{});
    default: STD_TORCH_CHECK(false, name, " is not implemented for ", torch::headeronly::toString(t));
  }
}

// 32-bit indices where every offset fits (integer division is several times cheaper on a GPU), else
// 64-bit. `extent` is the largest offset the kernel forms, grid-stride overshoot included.
template <typename F>
inline void dispatch_index(int64_t extent, F&& f) {
  if (extent < (int64_t{1} << 30)) return f(tag<int32_t>{});
  return f(tag<int64_t>{});
}

}  // namespace cv
