#pragma once
// What operators check that compare each box of one set with each of another, or pairs of them, and their output.

#include "torch_stable.h"

namespace cv {

inline void check_box_sets(const char* name, int64_t numbers, const Tensor& a, const Tensor& b, bool aligned) {
  STD_TORCH_CHECK(a.dim() == 2 && a.size(1) == numbers, name, ": bboxes1 must be [M, ", numbers, "]");
  STD_TORCH_CHECK(b.dim() == 2 && b.size(1) == numbers, name, ": bboxes2 must be [N, ", numbers, "]");
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), name, ": both box tensors must share a dtype");
  STD_TORCH_CHECK(on_same_device(a, b), name, ": both box tensors must be on one device");
  STD_TORCH_CHECK(!aligned || a.size(0) == b.size(0), name, ": aligned needs as many boxes on both sides");
}

inline Tensor new_overlaps(const Tensor& a, const Tensor& b, bool aligned) {
  return aligned ? empty_beside(a, {a.size(0)}, a.scalar_type())
                 : empty_beside(a, {a.size(0), b.size(0)}, a.scalar_type());
}

}  // namespace cv
