#pragma once
// What a loss does with its terms. No torch include here.

#include <cstdint>

namespace cv {

enum Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };

// Factor of the sum (or of its gradient). No rows: the mean is 0.
inline double reduction_scale(int64_t reduction, int64_t rows) {
  return reduction == kMean ? 1.0 / static_cast<double>(rows > 0 ? rows : 1) : 1.0;
}

}  // namespace cv
