#pragma once
// exp and log1p for loops that the compiler shall vectorise: libm's are calls. No branches, NaN stays NaN.
// float: error below 3 ulp; double: libm's own, for checking gradients rather than for speed. On the device
// the float versions use the hardware's exponential.

#include <cstdint>
#include <cstring>

#include <math.h>

#include "macros.h"

namespace cv {

// Results below the smallest normal number are that number, not 0.
CV_HD float fast_exp(float x) {
#if defined(__CUDA_ARCH__)
  return __expf(x);
#else
  x = x > 88.72283f ? 88.72283f : x;
  x = x < -87.33654f ? -87.33654f : x;
  // x = n ln2 + r. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  constexpr float shifter = 12582912.0f;
  const float shifted = x * 1.44269504088896341f + shifter;
  const float n = shifted - shifter;
  const float r = (x - n * 0.693145751953125f) - n * 1.42860677030e-6f;  // ln2 in two parts
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  // 2^n in two factors, since n may be 128. Unsigned: for NaN the exponent is any number, and does not matter.
  const int32_t exponent = bits - 0x4b400000, half = exponent >> 1;
  const uint32_t low = static_cast<uint32_t>(half + 127) << 23;
  const uint32_t high = static_cast<uint32_t>(exponent - half + 127) << 23;
  float a, b;
  std::memcpy(&a, &low, sizeof a);
  std::memcpy(&b, &high, sizeof b);
  return p * a * b;
#endif
}
CV_HD double fast_exp(double x) { return ::exp(x); }

// For 0 <= x <= 1 only: log1p(x) = 2 atanh(x / (2 + x)), whose series converges like 9^-k there.
CV_HD float fast_log1p_unit(float x) {
#if defined(__CUDA_ARCH__)
  const float s = __fdividef(x, 2.0f + x);
#else
  const float s = x / (2.0f + x);
#endif
  const float q = s * s;
  float p = 1.0f / 15;
  p = p * q + 1.0f / 13;
  p = p * q + 1.0f / 11;
  p = p * q + 1.0f / 9;
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  p = p * q + 1.0f / 3;
  p = p * q + 1.0f;
  return 2.0f * s * p;
}
CV_HD double fast_log1p_unit(double x) { return ::log1p(x); }

// For x >= 0. On the CPU, infinity counts as 2^128.
CV_HD float fast_log1p(float x) {
#if defined(__CUDA_ARCH__)
  return ::log1pf(x);
#else
  // 1 + x = 2^k (1 + f) with 1 + f within sqrt(2) of 1. For k = 0, f is x itself, without its rounding in 1 + x.
  const float u = 1.0f + x;
  int32_t bits;
  std::memcpy(&bits, &u, sizeof bits);
  const int32_t k = (bits - 0x3f3504f3) >> 23, mantissa = bits - k * (1 << 23);
  float m;
  std::memcpy(&m, &mantissa, sizeof m);
  const float f = k == 0 ? x : m - 1.0f;
  const float s = f / (2.0f + f);  // log(1 + f) = 2 atanh(s), |s| < 0.172
  const float q = s * s;
  float p = 1.0f / 9;
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  p = p * q + 1.0f / 3;
  p = p * q + 1.0f;
  const float n = static_cast<float>(k);
  const float result = n * 0.693145751953125f + (n * 1.42860677030e-6f + 2.0f * s * p);
  return x != x ? x : result;
#endif
}
CV_HD double fast_log1p(double x) { return ::log1p(x); }

}  // namespace cv
