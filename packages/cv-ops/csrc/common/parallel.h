#pragma once
// How work is cut for threads.

#include <algorithm>
#include <cstdint>

namespace cv {

// The grain of a parallel_for whose items take about so many operations each: starting another thread takes as
// long as thousands of them.
inline int64_t grain_for(int64_t operations) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, operations)); }

}  // namespace cv
