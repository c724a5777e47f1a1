// RoIAlign of rotated boxes on CUDA: the operators. The kernels are in common/roi_mean.cuh.
//
// The gradient is summed by atomics in opmath dtype, or in a fixed order by a slower kernel.

#include "../common/roi_mean.cuh"
#include "roi_align_rotated_args.h"

namespace cv::roi_align_rotated {
namespace {

auto sampler_of(const Tensor& regions, const Params& p) {
  return [&regions, p](auto a) {
    using A = typename decltype(a)::type;
    return Sampler<A>{p, regions.const_data_ptr<A>()};
  };
}

Tensor roi_align_rotated_cuda(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_h,
                              int64_t pooled_w, int64_t sampling_ratio, bool aligned, bool clockwise) {
  check_forward(input, rois);
  const Params p = make_params(input, rois, input.size(0), input.size(1), input.size(2), input.size(3), spatial_scale,
                               pooled_h, pooled_w, sampling_ratio, aligned, clockwise);
  CudaScope scope(input);
  const bool nhwc = is_channels_last(input);
  const Tensor x = roi::in_layout(input, nhwc), regions = region_tensor(rois, input.scalar_type());
  return roi::mean_cuda(x, rois.size(0), p, nhwc, scope.stream, sampler_of(regions, p));
}

Tensor roi_align_rotated_backward_cuda(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t pooled_h,
                                       int64_t pooled_w, int64_t sampling_ratio, bool aligned, bool clockwise,
                                       int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last_input,
                                       bool deterministic) {
  const Params p = make_params(grad, rois, n, c, h, w, spatial_scale, pooled_h, pooled_w, sampling_ratio, aligned,
                               clockwise);
  check_grad(grad, rois, p);
  CudaScope scope(grad);
  const Tensor regions = region_tensor(rois, grad.scalar_type());
  Tensor grad_input = empty_4d(grad, n, c, h, w, opmath_dtype(grad.scalar_type()), channels_last_input);
  zero_(grad_input);
  roi::add_mean_backward_cuda(grad, grad_input, p, channels_last_input, deterministic, scope.stream,
                              sampler_of(regions, p));
  return to_dtype(grad_input, grad.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("roi_align_rotated", CV_BOX(&roi_align_rotated_cuda));
  m.impl("roi_align_rotated_backward", CV_BOX(&roi_align_rotated_backward_cuda));
}

}  // namespace cv::roi_align_rotated
