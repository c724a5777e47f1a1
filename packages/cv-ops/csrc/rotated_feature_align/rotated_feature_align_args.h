#pragma once
// What both backends do first (cv.ops.rotated_feature_align says the same in better words once they have refused).

#include <cmath>

#include "../common/torch_stable.h"
#include "rotated_feature_align.h"

namespace cv::rotated_feature_align {

// features: the map, or the gradient of the output, which has the same shape
inline Params make_params(const Tensor& features, const Tensor& boxes, double spatial_scale, int64_t points) {
  STD_TORCH_CHECK(is_floating(features) && is_floating(boxes),
                  "rotated_feature_align: features and best_rbboxes must have a floating dtype");
  STD_TORCH_CHECK(features.dim() == 4, "rotated_feature_align: features must be [N, C, H, W]");
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 5 &&
                      boxes.size(0) == features.size(0) * features.size(2) * features.size(3),
                  "rotated_feature_align: there must be a box (5 numbers) for each pixel");
  STD_TORCH_CHECK(on_same_device(features, boxes), "rotated_feature_align: both tensors must be on one device");
  STD_TORCH_CHECK(points == 1 || points == 5, "rotated_feature_align: points must be 1 or 5");
  STD_TORCH_CHECK(spatial_scale > 0 && std::isfinite(spatial_scale),
                  "rotated_feature_align: spatial_scale must be positive and finite");
  STD_TORCH_CHECK(checked_product(features.size(2), features.size(3)) < (int64_t{1} << 31),
                  "rotated_feature_align: a map must have fewer than 2^31 pixels");
  return Params{features.size(0), features.size(1), features.size(2), features.size(3), points, spatial_scale};
}

// Coordinates keep the precision of the arithmetic, whatever the dtype of the map.
inline Tensor box_tensor(const Tensor& boxes, ScalarType map_dtype) {
  return as_contiguous(to_dtype(boxes, opmath_dtype(map_dtype)));
}

}  // namespace cv::rotated_feature_align
