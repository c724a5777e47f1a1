#pragma once
// Bias, leaky ReLU and scale of one element, and its derivative. No torch include here.
//
//   y = scale l(z),  z = x + b,  l(z) = z for z > 0, else slope z
//
// slope is not negative and scale is positive, so y > 0 exactly where z > 0: the derivative
//
//   dy/dz = scale (1 or slope)
//
// needs y only, which the next layer keeps anyway. It does not depend on z otherwise, so the derivative of the
// gradient is the same factor again, for every order: one formula serves all of them, with the sign taken from
// z itself (the forward pass) or from the y of the forward pass.

#include "../common/macros.h"

namespace cv::fused_bias_leakyrelu {

// `positive`: scale; `negative`: scale * slope
template <typename A>
struct Factors {
  A positive, negative;

  CV_HD A operator()(A sign) const { return sign > A(0) ? positive : negative; }
};

}  // namespace cv::fused_bias_leakyrelu
