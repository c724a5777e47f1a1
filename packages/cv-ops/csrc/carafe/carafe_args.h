#pragma once
// What both backends do first: checks (cv.ops says the same in better words once they have failed), and the
// parameters from the arguments.

#include "../common/torch_stable.h"
#include "carafe.h"

namespace cv::carafe {

inline Params make_params(const Tensor& features, const Tensor& masks, int64_t kernel, int64_t groups, int64_t scale) {
  STD_TORCH_CHECK(is_floating(features), "carafe: features must have a floating dtype");
  STD_TORCH_CHECK(features.dim() == 4 && masks.dim() == 4, "carafe: features and masks must have 4 dimensions");
  STD_TORCH_CHECK(kernel > 0 && kernel % 2 == 1 && kernel < 1024 && groups > 0 && scale > 0,
                  "carafe: kernel_size must be odd, group_size and scale_factor positive");
  const Params p{features.size(0), features.size(1), features.size(2), features.size(3), kernel, groups, scale};
  STD_TORCH_CHECK(p.channels % groups == 0, "carafe: group_size must divide the channels");
  STD_TORCH_CHECK(masks.size(0) == p.batch && masks.size(1) == checked_product(groups, p.taps()) &&
                      masks.size(2) == checked_product(p.height, scale) &&
                      masks.size(3) == checked_product(p.width, scale),
                  "carafe: masks must have shape (N, group_size * kernel_size^2, scale * H, scale * W)");
  STD_TORCH_CHECK(features.scalar_type() == masks.scalar_type(), "carafe: features and masks must have one dtype");
  STD_TORCH_CHECK(on_same_device(features, masks), "carafe: features and masks must be on one device");
  return p;
}

inline void check_grad(const Tensor& grad, const Tensor& features, const Params& p) {
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == p.batch && grad.size(1) == p.channels &&
                      grad.size(2) == p.out_height() && grad.size(3) == p.out_width() &&
                      grad.scalar_type() == features.scalar_type() && on_same_device(grad, features),
                  "carafe_backward: grad must have shape, dtype and device of the output");
}

}  // namespace cv::carafe
