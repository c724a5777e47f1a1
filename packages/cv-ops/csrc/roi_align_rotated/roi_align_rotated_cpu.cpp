// RoIAlign of rotated boxes on the CPU: the operators. How regions are pooled is in common/roi_mean_cpu.h.

#include "../common/roi_mean_cpu.h"
#include "roi_align_rotated_args.h"

namespace cv::roi_align_rotated {
namespace {

Tensor roi_align_rotated_cpu(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_h,
                             int64_t pooled_w, int64_t sampling_ratio, bool aligned, bool clockwise) {
  check_forward(input, rois);
  const Params p = make_params(input, rois, input.size(0), input.size(1), input.size(2), input.size(3), spatial_scale,
                               pooled_h, pooled_w, sampling_ratio, aligned, clockwise);
  const Tensor regions = region_tensor(rois, input.scalar_type());
  Tensor out;
  dispatch_float_double(opmath_dtype(input.scalar_type()), "roi_align_rotated", [&](auto t) {
    using T = typename decltype(t)::type;
    const Sampler<T> sampler{p, regions.const_data_ptr<T>()};
    roi::check_images("roi_align_rotated", sampler.rois, rois.size(0), 6, p.batch);
    out = roi::mean_cpu<T>(input, sampler, rois.size(0));
  });
  return to_dtype(std::move(out), input.scalar_type());
}

Tensor roi_align_rotated_backward_cpu(const Tensor& grad, const Tensor& rois, double spatial_scale, int64_t pooled_h,
                                      int64_t pooled_w, int64_t sampling_ratio, bool aligned, bool clockwise, int64_t n,
                                      int64_t c, int64_t h, int64_t w, bool channels_last_input,
                                      bool /*deterministic: always so here*/) {
  const Params p = make_params(grad, rois, n, c, h, w, spatial_scale, pooled_h, pooled_w, sampling_ratio, aligned,
                               clockwise);
  check_grad(grad, rois, p);
  const Tensor regions = region_tensor(rois, grad.scalar_type());
  Tensor grad_input;
  dispatch_float_double(opmath_dtype(grad.scalar_type()), "roi_align_rotated_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    grad_input = roi::mean_backward_cpu<T>(grad, Sampler<T>{p, regions.const_data_ptr<T>()}, channels_last_input);
  });
  return to_dtype(grad_input, grad.scalar_type());
}

}  // namespace

#define CV_ROI_ALIGN_ROTATED_NUMBERS \
  "float spatial_scale, int pooled_h, int pooled_w, int sampling_ratio, bool aligned, bool clockwise"
STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("roi_align_rotated(Tensor input, Tensor rois, " CV_ROI_ALIGN_ROTATED_NUMBERS ") -> Tensor");
  m.def("roi_align_rotated_backward(Tensor grad, Tensor rois, " CV_ROI_ALIGN_ROTATED_NUMBERS
        ", SymInt n, SymInt c, SymInt h, SymInt w, bool channels_last, bool deterministic) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("roi_align_rotated", CV_BOX(&roi_align_rotated_cpu));
  m.impl("roi_align_rotated_backward", CV_BOX(&roi_align_rotated_backward_cpu));
}

}  // namespace cv::roi_align_rotated
