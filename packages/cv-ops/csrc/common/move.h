#pragma once
// For operators that only move elements: one instance per element size instead of one per dtype.

#include "dispatch.h"

namespace cv {

inline int64_t element_size(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return 8;
    case ScalarType::Float: return 4;
    case ScalarType::Half: case ScalarType::BFloat16: return 2;
    default: return 0;
  }
}

// f(tag of an unsigned integer as large as an element); floating-point tensors only.
template <typename F>
inline void dispatch_element_size(const Tensor& t, const char* name, F&& f) {
  switch (element_size(t)) {
    case 2: return f(tag<uint16_t>{});
    case 4: return f(tag<uint32_t>{});
    case 8: return f(tag<uint64_t>{});
    default: STD_TORCH_CHECK(false, name, " is not implemented for ", torch::headeronly::toString(t.scalar_type()));
  }
}

}  // namespace cv
