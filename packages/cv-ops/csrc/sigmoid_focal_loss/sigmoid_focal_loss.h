#pragma once
// Sigmoid focal loss of one logit, and its derivative. No torch include here.
//
// With p = sigmoid(x), the loss of a positive is -alpha (1 - p)^gamma log p, that of a negative
// -(1 - alpha) p^gamma log(1 - p) (Lin et al., "Focal Loss for Dense Object Detection", 2017). Both are one
// function of z = x for a positive and z = -x for a negative, since 1 - sigmoid(z) = sigmoid(-z):
//
//   q = sigmoid(-z),  s = softplus(-z) = -log sigmoid(z)
//   loss = a q^gamma s                                      a = alpha or 1 - alpha, times the class weight
//   dloss/dz = -a q^gamma (gamma (1 - q) s + q)             from dq/dz = -q (1 - q) and ds/dz = -q
//
// log q = -softplus(z), so q^gamma = exp(-gamma softplus(z)): nothing overflows, and no clamp is needed
// where p is 0 or 1 to float32.

#include "../common/reduction.h"
#include "../common/vmath.h"

namespace cv::sigmoid_focal_loss {

template <typename A>
struct Terms {
  A s, q, q_gamma;
};

// kSquare: gamma is 2, the usual value.
template <bool kSquare, typename A>
CV_HD Terms<A> terms(A z, A gamma) {
  const A e = fast_exp(z > A(0) ? -z : z);  // exp(-|z|)
  const A l = fast_log1p_unit(e);
  Terms<A> t;
  t.s = (z > A(0) ? A(0) : -z) + l;
  t.q = (z > A(0) ? e : A(1)) / (A(1) + e);
  if (kSquare) {
    t.q_gamma = t.q * t.q;
  } else {
    const A softplus = (z > A(0) ? z : A(0)) + l;
    t.q_gamma = fast_exp(-gamma * (softplus < A(1e30) ? softplus : A(1e30)));  // gamma may be 0: no 0 * inf
  }
  return t;
}

template <bool kSquare, typename A>
CV_HD A loss(A z, A a, A gamma) {
  const Terms<A> t = terms<kSquare>(z, gamma);
  return a * t.q_gamma * t.s;
}

template <bool kSquare, typename A>
CV_HD A loss_derivative(A z, A a, A gamma) {
  const Terms<A> t = terms<kSquare>(z, gamma);
  return -a * t.q_gamma * (gamma * (A(1) - t.q) * t.s + t.q);
}

}  // namespace cv::sigmoid_focal_loss
