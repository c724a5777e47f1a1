#pragma once
// The squared distance from each point of a set to the nearest of another. Shared by both backends; no torch include
// here. Of points at the same distance the first is the nearest. A distance that is NaN is the nearest only where
// all are.

#include <cstdint>

#include "../common/macros.h"

namespace cv::chamfer_distance {

struct Sizes {
  int64_t batch, first, second;  // points of either set
};

template <typename A>
CV_HD A squared_distance(A ax, A ay, A bx, A by) {
  const A dx = ax - bx, dy = ay - by;
  return dx * dx + dy * dy;
}

template <typename A>
CV_HD bool is_nearer(A distance, A best) {
  return (distance < best) | ((best != best) & (distance == distance));
}

}  // namespace cv::chamfer_distance
