#pragma once
// Softmax focal loss of one row of logits, and its derivative. No torch include here.
//
// With p the softmax probability of the label t (Lin et al., "Focal Loss for Dense Object Detection", 2017, for
// one label out of C classes), q = 1 - p and s = -log p:
//
//   loss = a q^gamma s                                      a = alpha times the class weight
//   dloss/dlog p = -a q^gamma (1 + gamma p s / q)           from dq/dlog p = -p
//   dlog p/dx_j = [j = t] - p_j
//
// A row is summed up by e_j = exp(x_j - m), m its largest logit: `others` is the sum of e_j over j != t, so
// that q = others / (others + e_t) keeps its digits where p is close to 1.

#include "../common/reduction.h"
#include "../common/vmath.h"

namespace cv::softmax_focal_loss {

template <typename A>
struct Terms {
  A total;  // sum of all e_j
  A s, q, p, q_gamma;
};

// gap = m - x_t. kSquare: gamma is 2, the usual value.
template <bool kSquare, typename A>
CV_HD Terms<A> terms(A gap, A others, A gamma) {
  Terms<A> r;
  const A e_t = fast_exp(-gap);
  r.total = others + e_t;
  // total - 1 without the rounding of total: the largest e_j, which is 1, is e_t or among the others.
  const A rest = e_t == A(1) ? others : (others - A(1)) + e_t;
  r.s = gap + fast_log1p(rest);
  r.q = others / r.total;
  r.p = e_t / r.total;
  if (kSquare) {
    r.q_gamma = r.q * r.q;
  } else {
    const A minus_log_q = fast_log1p(e_t / others);
    r.q_gamma = fast_exp(-gamma * (minus_log_q > A(1e30) ? A(1e30) : minus_log_q));  // gamma may be 0: no 0 * inf
  }
  return r;
}

template <typename A>
CV_HD A loss(const Terms<A>& r, A a) {
  return a * r.q_gamma * r.s;
}

// dloss/dlog p. The gradient is (this) q for the label and -(this) e_j / total for any other class.
template <typename A>
CV_HD A slope(const Terms<A>& r, A a, A gamma) {
  const A bounded = r.s > A(1e30) ? A(1e30) : r.s;  // p = 0: no 0 * inf
  const A ratio = bounded / r.q;
  return -a * r.q_gamma * (A(1) + gamma * r.p * (r.q == A(0) ? A(1) : ratio));  // s / q goes to 1
}

}  // namespace cv::softmax_focal_loss
