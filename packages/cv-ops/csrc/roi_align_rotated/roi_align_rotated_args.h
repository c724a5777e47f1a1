#pragma once
// What both backends do first: checks (cv.ops says the same in better words once they have failed), and the
// parameters from the arguments.

#include "../common/roi_check.h"
#include "roi_align_rotated.h"

namespace cv::roi_align_rotated {

inline Params make_params(const Tensor& beside, const Tensor& rois, int64_t n, int64_t c, int64_t h, int64_t w,
                          double spatial_scale, int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio,
                          bool aligned, bool clockwise) {
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 6, "roi_align_rotated: rois must have shape (K, 6)");
  STD_TORCH_CHECK(on_same_device(beside, rois), "roi_align_rotated: rois must be on the device of input");
  const Params p{{n, c, h, w, pooled_h, pooled_w, sampling_ratio, spatial_scale, aligned}, clockwise};
  roi::check_numbers("roi_align_rotated", p);
  return p;
}

inline void check_forward(const Tensor& x, const Tensor& rois) {
  roi::check_map_and_rois("roi_align_rotated", x, rois, 6);
}

inline void check_grad(const Tensor& grad, const Tensor& rois, const Params& p) {
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == rois.size(0) && grad.size(1) == p.channels &&
                      grad.size(2) == p.pooled_h && grad.size(3) == p.pooled_w,
                  "roi_align_rotated_backward: grad must have the shape of the output");
}

// Coordinates keep the precision of the arithmetic, whatever the dtype of the map.
inline Tensor region_tensor(const Tensor& rois, ScalarType map_dtype) {
  return as_contiguous(to_dtype(rois, opmath_dtype(map_dtype)));
}

}  // namespace cv::roi_align_rotated
