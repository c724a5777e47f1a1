#pragma once
// Active rotating filters: each filter in all its rotations. Shared by both backends; no torch include here.
//
// A filter has n entries (orientation, row, column). For rotation r, entry e goes to place indices[e][r], counted
// from 1. Zhou et al., "Oriented Response Networks", CVPR 2017, section 3.1. As a rule that is a permutation; where
// two entries name one place the later one counts, and a place that none names is 0.
//
// Two tables say it: what a place is read from (forward), and where an entry has gone to (backward), -1 for nothing.

#include <cstdint>

#include "../common/macros.h"

namespace cv::active_rotated_filter {

struct Sizes {
  int64_t outputs, inputs, entries, rotations;

  CV_HD int64_t table() const { return rotations * entries; }
};

// sources and targets: (rotations, entries). One rotation. Returns whether all indices are within [1, entries];
// others name no place.
CV_HD bool fill_tables(const int32_t* indices, int64_t rotation, const Sizes& s, int32_t* sources, int32_t* targets) {
  bool valid = true;
  int32_t *source = sources + rotation * s.entries, *target = targets + rotation * s.entries;
  for (int64_t e = 0; e < s.entries; ++e) source[e] = -1;
  for (int64_t e = 0; e < s.entries; ++e) {
    const int32_t place = indices[e * s.rotations + rotation];
    const bool inside = place >= 1 && place <= s.entries;
    valid = valid && inside;
    if (inside) source[place - 1] = static_cast<int32_t>(e);
  }
  for (int64_t e = 0; e < s.entries; ++e) target[e] = -1;
  for (int64_t place = 0; place < s.entries; ++place)
    if (source[place] >= 0) target[source[place]] = static_cast<int32_t>(place);
  return valid;
}

}  // namespace cv::active_rotated_filter
