#pragma once
// What the CPU and the CUDA entry of tin_shift share.
//
// The channels are cut into equal groups. Group g of sample n moves by s = shift[n, g] along time (Shao et al.,
// "Temporal Interlacing Network", 2020): out[n, t, c] = in[n, t - s, c], or 0 where t - s is out of range. The
// gradient moves by -s. In memory these are whole chunks: the channels of a group at one time.

#include "../common/move.h"

namespace cv::tin_shift {

struct Geometry {
  int64_t n, times, groups, chunk;  // chunk: elements of one group at one time
};

// cv.ops.tin_shift says the same in better words once these have failed.
inline Geometry geometry_of(const Tensor& input, const Tensor& shift) {
  STD_TORCH_CHECK(is_floating(input), "tin_shift: input must have a floating dtype");
  STD_TORCH_CHECK(input.dim() == 4, "tin_shift: input must be [N, T, C, HW]");
  STD_TORCH_CHECK(shift.dim() == 2 && shift.size(0) == input.size(0), "tin_shift: shift must be [N, groups]");
  STD_TORCH_CHECK(shift.scalar_type() == ScalarType::Long, "tin_shift: shift must be int64");
  STD_TORCH_CHECK(on_same_device(input, shift), "tin_shift: input and shift must be on one device");
  const int64_t groups = shift.size(1);
  STD_TORCH_CHECK(groups > 0 && input.size(2) % groups == 0, "tin_shift: groups must divide the channels");
  return {input.size(0), input.size(1), groups, input.size(2) / groups * input.size(3)};
}

inline Tensor empty_output(const Tensor& x) {
  return empty_beside(x, {x.size(0), x.size(1), x.size(2), x.size(3)}, x.scalar_type());
}

}  // namespace cv::tin_shift
