#pragma once
// exp of a whole Vec. fast_exp of vmath.h in a plain loop gives the same, in twice as many instructions, since it takes
// any argument.

#include <math.h>

#include "vec.h"

namespace cv {

// Which lane is which, for masks: a vector of integers as wide as T.
template <typename T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef int32_t type __attribute__((vector_size(64)));
  static CV_HD type indices() { return type{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }
};
template <>
struct Lanes<double> {
  typedef int64_t type __attribute__((vector_size(64)));
  static CV_HD type indices() { return type{0, 1, 2, 3, 4, 5, 6, 7}; }
};

// For x <= 0, -infinity included; NaN stays NaN and exp(0) is 1. float: error below 3 ulp, and results below the
// smallest normal number are that number; double: libm's.
CV_HD Vec<float> exp_of_negative(Vec<float> arg) {
  using V = Vec<float>::type;
  typedef uint32_t Bits __attribute__((vector_size(64)));
  const V least = V{} - 87.33654f;
  const V x = arg.v < least ? least : arg.v;
  // x = n ln2 + r. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits, here with the bias of the
  // exponent, so that they are shifted to make 2^n.
  constexpr float shifter = 12582912.0f + 127.0f;
  const V shifted = x * 1.44269504088896341f + shifter;
  const V n = shifted - shifter;
  const V r = (x - n * 0.693145751953125f) - n * 1.42860677030e-6f;  // ln2 in two parts
  V p = r * (1.0f / 720) + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return Vec<float>{p * reinterpret_cast<V>(reinterpret_cast<Bits>(shifted) << 23)};
}
CV_HD Vec<double> exp_of_negative(Vec<double> x) {
  for (int64_t i = 0; i < Vec<double>::size; ++i) x.v[i] = ::exp(x.v[i]);
  return x;
}

}  // namespace cv
