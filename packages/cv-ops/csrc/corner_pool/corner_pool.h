#pragma once
// One step of a running maximum. No torch include here.

#include "../common/macros.h"

namespace cv::corner_pool {

// Whether x, after the maximum m, is the new one; of equal values the later one counts, and a NaN replaces all.
template <typename A>
CV_HD bool is_record(A x, A m) {
  return (x >= m) | (x != x);
}

// The same from the result, in which m is the maximum up to and including x.
template <typename A>
CV_HD bool was_record(A x, A m) {
  return (x == m) | (x != x);
}

}  // namespace cv::corner_pool
