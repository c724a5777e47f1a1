#pragma once
// What both backends do first: the geometry from the arguments, and checks (cv.ops says the same in better words
// once they have failed).

#include <optional>

#include "../common/torch_stable.h"
#include "deform_conv.h"

namespace cv::deform_conv {

inline int64_t output_size(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  const int64_t span = size + 2 * pad - (checked_product(dilation, kernel - 1) + 1);
  return span < 0 ? 0 : span / stride + 1;
}

inline Geometry make_geometry(const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask,
                              const Tensor& weight, int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w,
                              int64_t dilation_h, int64_t dilation_w, int64_t groups, int64_t deform_groups) {
  STD_TORCH_CHECK(input.dim() == 4 && offset.dim() == 4 && weight.dim() == 4 && (!mask || mask->dim() == 4),
                  "deform_conv2d: input, offset, mask and weight must have 4 dimensions");
  STD_TORCH_CHECK(input.scalar_type() == weight.scalar_type(),
                  "deform_conv2d: input and weight must have the same dtype");
  STD_TORCH_CHECK(is_floating(input) && is_floating(offset) && (!mask || is_floating(*mask)),
                  "deform_conv2d: input, offset and mask must have a floating dtype");
  STD_TORCH_CHECK(stride_h > 0 && stride_w > 0 && dilation_h > 0 && dilation_w > 0 && pad_h >= 0 && pad_w >= 0 &&
                      groups > 0 && deform_groups > 0,
                  "deform_conv2d: stride, dilation, groups and deform_groups must be positive, padding not negative");
  const int64_t most = int64_t{1} << 30;  // what is computed from these then fits
  STD_TORCH_CHECK(stride_h < most && stride_w < most && dilation_h < most && dilation_w < most && pad_h < most &&
                      pad_w < most,
                  "deform_conv2d: stride, dilation and padding must be below 2^30");
  STD_TORCH_CHECK(on_same_device(offset, input) && on_same_device(weight, input) &&
                      (!mask || on_same_device(*mask, input)),
                  "deform_conv2d: input, offset, mask and weight must be on one device");
  Geometry g;
  g.batch = input.size(0), g.channels = input.size(1), g.height = input.size(2), g.width = input.size(3);
  g.out_channels = weight.size(0), g.kernel_h = weight.size(2), g.kernel_w = weight.size(3);
  g.stride_h = stride_h, g.stride_w = stride_w, g.pad_h = pad_h, g.pad_w = pad_w;
  g.dilation_h = dilation_h, g.dilation_w = dilation_w, g.groups = groups, g.deform_groups = deform_groups;
  g.out_h = output_size(g.height, g.kernel_h, stride_h, pad_h, dilation_h);
  g.out_w = output_size(g.width, g.kernel_w, stride_w, pad_w, dilation_w);
  STD_TORCH_CHECK(g.channels % groups == 0 && g.channels % deform_groups == 0 && g.out_channels % groups == 0 &&
                      weight.size(1) == g.channels / groups,
                  "deform_conv2d: channels must be divisible by groups and deform_groups, and match the weight");
  const int64_t limit = int64_t{1} << 31;
  STD_TORCH_CHECK(checked_product(g.height, g.width) < limit && checked_product(g.out_h, g.out_w) < limit,
                  "deform_conv2d: a map must have fewer than 2^31 pixels");
  const auto has_shape = [&](const Tensor& t, int64_t c) {
    return t.size(0) == g.batch && t.size(1) == c && t.size(2) == g.out_h && t.size(3) == g.out_w;
  };
  const int64_t weights = checked_product(deform_groups, checked_product(g.kernel_h, g.kernel_w));
  STD_TORCH_CHECK(has_shape(offset, checked_product(2, weights)),
                  "deform_conv2d: offset must have shape (N, 2 * deform_groups * taps, out_h, out_w)");
  STD_TORCH_CHECK(!mask || has_shape(*mask, weights),
                  "deform_conv2d: mask must have shape (N, deform_groups * taps, out_h, out_w)");
  return g;
}

// Of the forward pass alone.
inline void check_output(const Tensor& input, const std::optional<Tensor>& bias, const Geometry& g) {
  STD_TORCH_CHECK(g.out_h > 0 && g.out_w > 0, "deform_conv2d: input is too small for one output pixel");
  if (!bias) return;
  STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == g.out_channels, "deform_conv2d: bias must have shape (C_out,)");
  STD_TORCH_CHECK(bias->scalar_type() == input.scalar_type(), "deform_conv2d: input and bias must have the same dtype");
  STD_TORCH_CHECK(on_same_device(*bias, input), "deform_conv2d: input and bias must be on one device");
}

inline void check_grad(const Tensor& grad, const Tensor& input, const Geometry& g) {
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == g.batch && grad.size(1) == g.out_channels &&
                      grad.size(2) == g.out_h && grad.size(3) == g.out_w,
                  "deform_conv2d_backward: grad must have the shape of the output");
  STD_TORCH_CHECK(on_same_device(grad, input), "deform_conv2d_backward: grad and input must be on one device");
}

inline bool is_empty(const Geometry& g) {
  return g.pixels() == 0 || g.out_channels == 0 || g.channels == 0 || g.taps() == 0 || g.height == 0 || g.width == 0;
}

}  // namespace cv::deform_conv
