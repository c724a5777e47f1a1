#pragma once
// What both backends do first (cv.ops.riroi_align_rotated says the same in better words once they have refused).

#include "../common/memory_format.h"
#include "mix_orientations.h"

namespace cv::mix_orientations {

// x is contiguous or channels-last; there are as many inner values as a feature's orientations are apart.
inline Params make_params(const Tensor& x, const Tensor& rois, int64_t orientations, bool clockwise, bool transposed) {
  STD_TORCH_CHECK(is_floating(x) && x.dim() == 4, "mix_orientations: input must be [K, C, H, W] of a floating dtype");
  STD_TORCH_CHECK(is_floating(rois) && rois.dim() == 2 && rois.size(0) == x.size(0) && rois.size(1) == 6,
                  "mix_orientations: rois must be [K, 6] of a floating dtype");
  STD_TORCH_CHECK(on_same_device(x, rois), "mix_orientations: rois must be on the device of input");
  STD_TORCH_CHECK(orientations > 0 && x.size(1) % orientations == 0,
                  "mix_orientations: input must have a multiple of num_orientations channels");
  const int64_t features = x.size(1) / orientations, bins = x.size(2) * x.size(3);
  const bool nhwc = is_channels_last(x);
  return Params{x.size(0), nhwc ? features * bins : features, orientations, nhwc ? 1 : bins, clockwise, transposed};
}

inline Tensor dense(const Tensor& x) { return is_channels_last(x) ? x : as_contiguous(x); }

inline Tensor new_output(const Tensor& x) {
  return empty_4d(x, x.size(0), x.size(1), x.size(2), x.size(3), x.scalar_type(), is_channels_last(x));
}

// Angles keep the precision of the arithmetic, whatever the dtype of the input.
inline Tensor region_tensor(const Tensor& rois, ScalarType dtype) {
  return as_contiguous(to_dtype(rois, opmath_dtype(dtype)));
}

}  // namespace cv::mix_orientations
