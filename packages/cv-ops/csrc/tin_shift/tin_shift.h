#pragma once
// Where a chunk comes from. No torch include here.

#include <cstdint>

#include "../common/macros.h"

namespace cv::tin_shift {

// The time that moves to t, or -1. Any shift is defined, the largest integers too.
CV_HD int64_t source_time(int64_t t, int64_t shift, bool back, int64_t times) {
  if (shift <= -times || shift >= times) return -1;
  const int64_t source = back ? t + shift : t - shift;
  return source >= 0 && source < times ? source : -1;
}

}  // namespace cv::tin_shift
