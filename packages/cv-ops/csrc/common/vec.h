#pragma once
// 64 bytes of T as one value, for CPU loops over channels that the compiler would not vectorise itself
// (dot products: it may not reorder a sum). One AVX-512 register, two AVX2 or four SSE ones: the
// compiler splits it, so the same source serves every variant that vectorized() of isa.h builds.

#include <algorithm>
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
    const Vec parts[4] = {*this, zero(), zero(), zero()};
    T sums[4];
    sum_each(parts, sums);
    return sums[0];
  }

  // sums[i] = sum of the lanes of parts[i]. Four at a time share the shuffles.
  static CV_HD void sum_each(const Vec parts[4], T sums[4]) {
    fold_each(parts, sums, [](auto a, auto b) { return a + b; });
  }
  // The same for the largest lane; a NaN may or may not count.
  static CV_HD void max_each(const Vec parts[4], T largest[4]) {
    fold_each(parts, largest, [](auto a, auto b) { return a > b ? a : b; });
  }

  template <typename F>
  static CV_HD void fold_each(const Vec parts[4], T results[4], F&& fold) {
    typedef T half __attribute__((vector_size(32)));
    typedef T quarter __attribute__((vector_size(16)));
    quarter q[4];
    for (int i = 0; i < 4; ++i) {
      half h[2];
      std::memcpy(h, &parts[i].v, sizeof h);
      const half folded = fold(h[0], h[1]);
      quarter p[2];
      std::memcpy(p, &folded, sizeof p);
      q[i] = fold(p[0], p[1]);
    }
    if constexpr (sizeof(T) == 4) {
      const quarter a = fold(__builtin_shufflevector(q[0], q[1], 0, 4, 1, 5), __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7));
      const quarter b = fold(__builtin_shufflevector(q[2], q[3], 0, 4, 1, 5), __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7));
      const quarter all = fold(__builtin_shufflevector(a, b, 0, 1, 4, 5), __builtin_shufflevector(a, b, 2, 3, 6, 7));
      std::memcpy(results, &all, sizeof all);
    } else {
      for (int i = 0; i < 4; ++i) results[i] = fold(q[i][0], q[i][1]);
    }
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
  for (; c + 2 * V::size <= count; c += 2 * V::size) {  // even and odd rows apart: four sums are under way as well
    V s0 = V::zero(), s1 = V::zero(), s2 = V::zero(), s3 = V::zero();
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
      const T *even = rows[i] + c, *odd = rows[i + 1] + c;
      s0 += weights[i] * V::load(even);
      s1 += weights[i] * V::load(even + V::size);
      s2 += weights[i + 1] * V::load(odd);
      s3 += weights[i + 1] * V::load(odd + V::size);
    }
    if (i < n) {
      s0 += weights[i] * V::load(rows[i] + c);
      s1 += weights[i] * V::load(rows[i] + c + V::size);
    }
    (s0 + s2).store(out + c);
    (s1 + s3).store(out + c + V::size);
  }
  // A rest is the end of a vector whose beginning is computed again.
  for (; c < count && count >= V::size; c += V::size) {
    c = std::min(c, count - V::size);
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

// out[c] += sum over i < n of weights[i] * rows[i][c], for c < count
template <typename T>
CV_HD void add_weighted_sum(T* CV_RESTRICT out, const T* const* rows, const T* weights, int64_t n, int64_t count) {
  using V = Vec<T>;
  int64_t c = 0;
  for (; c + 2 * V::size <= count; c += 2 * V::size) {
    V s0 = V::load(out + c), s1 = V::load(out + c + V::size);
    for (int64_t i = 0; i < n; ++i) {
      const T* row = rows[i] + c;
      s0 += weights[i] * V::load(row);
      s1 += weights[i] * V::load(row + V::size);
    }
    s0.store(out + c);
    s1.store(out + c + V::size);
  }
  for (; c < count; ++c)
    for (int64_t i = 0; i < n; ++i) out[c] += weights[i] * rows[i][c];
}

// d[i] += sum over c < n of grad[c] * rows[i][c]
template <typename T>
CV_HD void dot_rows(T d[4], const T* CV_RESTRICT grad, const T* const rows[4], int64_t n) {
  using V = Vec<T>;
  V s0 = V::zero(), s1 = V::zero(), s2 = V::zero(), s3 = V::zero();
  int64_t c = 0;
  for (; c + V::size <= n; c += V::size) {
    const V g = V::load(grad + c);
    s0 += g * V::load(rows[0] + c);
    s1 += g * V::load(rows[1] + c);
    s2 += g * V::load(rows[2] + c);
    s3 += g * V::load(rows[3] + c);
  }
  if (c > 0) {
    const V parts[4] = {s0, s1, s2, s3};
    T sums[4];
    V::sum_each(parts, sums);
    for (int i = 0; i < 4; ++i) d[i] += sums[i];
  }
  for (; c < n; ++c)
    for (int i = 0; i < 4; ++i) d[i] += grad[c] * rows[i][c];
}

}  // namespace cv
