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

// out[c] = sum over i < n of weights[i] * rows[i][c], for c < count
template <typename T>
CV_HD void weighted_sum(T* CV_RESTRICT out, const T* const* rows, const T* weights, int64_t n, int64_t count) {
  using V = Vec<T>;
  int64_t c = 0;
  for (; c + 4 * V::size <= count; c += 4 * V::size) {
    V s0 = V::zero(), s1 = V::zero(), s2 = V::zero(), s3 = V::zero();
    for (int64_t i = 0; i < n; ++i) {
      const T* row = rows[i] + c;
      const T w = weights[i];
      s0 += w * V::load(row);
      s1 += w * V::load(row + V::size);
      s2 += w * V::load(row + 2 * V::size);
      s3 += w * V::load(row + 3 * V::size);
    }
    s0.store(out + c);
    s1.store(out + c + V::size);
    s2.store(out + c + 2 * V::size);
    s3.store(out + c + 3 * V::size);
  }
  for (; c + V::size <= count; c += V::size) {
    V s = V::zero();
    for (int64_t i = 0; i < n; ++i) s += weights[i] * V::load(rows[i] + c);
    s.store(out + c);
  }
  for (; c < count; ++c) {
    T s = T(0);
    for (int64_t i = 0; i < n; ++i) s += weights[i] * rows[i][c];
    out[c] = s;
  }
}

// out[c] += weight * row[c], for c < count
template <typename T>
CV_HD void add_scaled(T* CV_RESTRICT out, const T* CV_RESTRICT row, T weight, int64_t count) {
  using V = Vec<T>;
  int64_t c = 0;
  for (; c + V::size <= count; c += V::size) (V::load(out + c) + weight * V::load(row + c)).store(out + c);
  for (; c < count; ++c) out[c] += weight * row[c];
}

}  // namespace cv
