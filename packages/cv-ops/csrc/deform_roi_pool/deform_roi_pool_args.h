#pragma once
// What both backends do first: checks (cv.ops says the same in better words once they have failed), and the
// parameters from the arguments.

#include <optional>

#include "../common/roi_check.h"
#include "deform_roi_pool.h"

namespace cv::deform_roi_pool {

inline Params make_params(const Tensor& rois, const std::optional<Tensor>& offset, int64_t n, int64_t c, int64_t h,
                          int64_t w, double spatial_scale, int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio,
                          double gamma) {
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 5, "deform_roi_pool: rois must have shape (K, 5)");
  constexpr double largest = std::numeric_limits<double>::max();
  STD_TORCH_CHECK(gamma >= -largest && gamma <= largest, "deform_roi_pool: gamma must be finite");
  if (offset) {
    STD_TORCH_CHECK(offset->dim() == 4 && offset->size(0) == rois.size(0) && offset->size(1) == 2 &&
                        offset->size(2) == pooled_h && offset->size(3) == pooled_w,
                    "deform_roi_pool: offset must have shape (K, 2, pooled_h, pooled_w)");
    STD_TORCH_CHECK(is_floating(*offset), "deform_roi_pool: offset must have a floating dtype");
    STD_TORCH_CHECK(on_same_device(rois, *offset), "deform_roi_pool: offset must be on the device of rois");
  }
  const Params p{{n, c, h, w, pooled_h, pooled_w, sampling_ratio, spatial_scale, true}, gamma};
  roi::check_numbers("deform_roi_pool", p);
  return p;
}

inline void check_map(const Tensor& x, const Tensor& rois) {
  roi::check_map_and_rois("deform_roi_pool", x, rois, 5);
}

inline void check_grad(const Tensor& grad, const Tensor& rois, const Params& p) {
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == rois.size(0) && grad.size(1) == p.channels &&
                      grad.size(2) == p.pooled_h && grad.size(3) == p.pooled_w,
                  "deform_roi_pool_backward: grad must have the shape of the output");
  STD_TORCH_CHECK(on_same_device(grad, rois), "deform_roi_pool_backward: grad must be on the device of rois");
}

// Boxes and offsets keep the precision of the arithmetic, whatever the dtype of the map.
struct Coordinates {
  Tensor rois, offset;
  bool moved;

  Coordinates(const Tensor& r, const std::optional<Tensor>& o, ScalarType map_dtype)
      : rois(as_contiguous(to_dtype(r, opmath_dtype(map_dtype)))),
        offset(o ? as_contiguous(to_dtype(*o, opmath_dtype(map_dtype))) : rois),
        moved(o.has_value()) {}

  template <typename A>
  Sampler<A> sampler(const Params& p) const {
    return Sampler<A>{p, rois.const_data_ptr<A>(), moved ? offset.const_data_ptr<A>() : nullptr};
  }
};

}  // namespace cv::deform_roi_pool
