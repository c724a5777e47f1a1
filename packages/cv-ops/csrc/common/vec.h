#pragma once
// 64 bytes of T as one value, for CPU loops over channels that the compiler would not vectorise itself
// (dot products: it may not reorder a sum). One AVX-512 register, two AVX2 or four SSE ones: the
// compiler splits it, so the same source serves every variant that vectorized() of isa.h builds.

#include <cstdint>
#include <cstring>

#include "macros.h"

namespace cv {

template <typename T>
struct Vec {
  static constexpr int64_t size = 64 / sizeof(T);
  typedef T type __attribute__((vector_size(64)));
  type v;

  static CV_HD Vec zero() { return Vec{type{}}; }
  static CV_HD Vec load(const T* p) {  // any alignment
    Vec r;
    std::memcpy(&r.v, p, sizeof(r.v));
    return r;
  }
  CV_HD void store(T* p) const { std::memcpy(p, &v, sizeof(v)); }

  CV_HD T sum() const {
    T halves[size];
    std::memcpy(halves, &v, sizeof(v));
    for (int64_t width = size / 2; width > 0; width /= 2)
      for (int64_t i = 0; i < width; ++i) halves[i] += halves[i + width];
    return halves[0];
  }

  friend CV_HD Vec operator+(Vec a, Vec b) { return Vec{a.v + b.v}; }
  friend CV_HD Vec operator*(Vec a, Vec b) { return Vec{a.v * b.v}; }
  friend CV_HD Vec operator*(T a, Vec b) { return Vec{a * b.v}; }
  CV_HD Vec& operator+=(Vec b) {
    v += b.v;
    return *this;
  }
};

}  // namespace cv
