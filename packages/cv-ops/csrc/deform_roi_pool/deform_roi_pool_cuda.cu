// Deformable RoI pooling on CUDA. The pooling itself and the gradient of the map, which is summed by atomics or in
// a fixed order by a slower kernel, are in common/roi_mean.cuh.
//
// The gradient of an offset is a sum over channels: one warp has one bin, a lane every 32nd channel. It is the
// same in every run.

#include "../common/roi_mean.cuh"
#include "deform_roi_pool_args.h"

namespace cv::deform_roi_pool {
namespace {

using roi::in_layout;
using roi::Layout;

auto sampler_of(const Coordinates& at, const Params& p) {
  return [&at, p](auto a) { return at.sampler<typename decltype(a)::type>(p); };
}

Tensor deform_roi_pool_cuda(const Tensor& input, const Tensor& rois, std::optional<Tensor> offset,
                            double spatial_scale, int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio,
                            double gamma) {
  check_map(input, rois);
  const Params p = make_params(rois, offset, input.size(0), input.size(1), input.size(2), input.size(3), spatial_scale,
                               pooled_h, pooled_w, sampling_ratio, gamma);
  CudaScope scope(input);
  const bool nhwc = is_channels_last(input);
  const Coordinates at(rois, offset, input.scalar_type());
  return roi::mean_cuda(in_layout(input, nhwc), rois.size(0), p, nhwc, scope.stream, sampler_of(at, p));
}

Tensor deform_roi_pool_backward_cuda(const Tensor& grad, const Tensor& rois, std::optional<Tensor> offset,
                                     double spatial_scale, int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio,
                                     double gamma, int64_t n, int64_t c, int64_t h, int64_t w,
                                     bool channels_last_input, bool deterministic) {
  const Params p =
      make_params(rois, offset, n, c, h, w, spatial_scale, pooled_h, pooled_w, sampling_ratio, gamma);
  check_grad(grad, rois, p);
  CudaScope scope(grad);
  const Coordinates at(rois, offset, grad.scalar_type());
  Tensor grad_input = empty_4d(grad, n, c, h, w, opmath_dtype(grad.scalar_type()), channels_last_input);
  zero_(grad_input);
  roi::add_mean_backward_cuda(grad, grad_input, p, channels_last_input, deterministic, scope.stream,
                              sampler_of(at, p));
  return to_dtype(grad_input, grad.scalar_type());
}

// tasks = regions * bins; grad in layout `out`, the map in layout `in`; grad_offset (K, {x, y}, bins)
template <typename T>
__global__ void offset_kernel(int64_t tasks, const T* CV_RESTRICT grad, Layout out, const T* CV_RESTRICT input,
                              Layout in, Sampler<opmath_t<T>> sampler, opmath_t<T>* CV_RESTRICT grad_offset) {
  using A = opmath_t<T>;
  const Params& p = sampler.p;
  const int lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; task < tasks;
       task += warps) {
    const int64_t k = task / p.bins(), bin = task % p.bins();
    const Region<A> r = sampler.region(k);
    A dy = A(0), dx = A(0);
    if (r.image >= 0) {
      const T* map = input + in.at(r.image, 0, 0);
      sampler.for_each_slope(
          r, k, bin / p.pooled_w, bin % p.pooled_w, [&](const Tap<A>& ty, const Tap<A>& tx, bool sy, bool sx) {
            const roi::Corners<A> at(ty, tx, p.width);
            A sum_y = A(0), sum_x = A(0);
            for (int64_t c = lane; c < p.channels; c += 32) {
              const A g = static_cast<A>(grad[out.at(k, c, bin)]);
              const T* from = map + c * in.channel;
              const A v0 = static_cast<A>(from[at.pixel[0] * in.pixel]), v1 = static_cast<A>(from[at.pixel[1] * in.pixel]);
              const A v2 = static_cast<A>(from[at.pixel[2] * in.pixel]), v3 = static_cast<A>(from[at.pixel[3] * in.pixel]);
              sum_y += g * (tx.weight_low * (v2 - v0) + tx.weight_high * (v3 - v1));
              sum_x += g * (ty.weight_low * (v1 - v0) + ty.weight_high * (v3 - v2));
            }
            if (sy) dy += sum_y;
            if (sx) dx += sum_x;
          });
    }
    dy = warp_sum(dy);
    dx = warp_sum(dx);
    if (lane == 0) {
      // A region on no image has no gradient, and its gain may be NaN.
      grad_offset[2 * k * p.bins() + bin] = r.image < 0 ? A(0) : sampler.gain_x(r) * dx / r.count;
      grad_offset[(2 * k + 1) * p.bins() + bin] = r.image < 0 ? A(0) : sampler.gain_y(r) * dy / r.count;
    }
  }
}

Tensor deform_roi_pool_offset_backward_cuda(const Tensor& grad, const Tensor& input, const Tensor& rois,
                                            const Tensor& offset, double spatial_scale, int64_t pooled_h,
                                            int64_t pooled_w, int64_t sampling_ratio, double gamma) {
  check_map(input, rois);
  const Params p = make_params(rois, offset, input.size(0), input.size(1), input.size(2), input.size(3), spatial_scale,
                               pooled_h, pooled_w, sampling_ratio, gamma);
  check_grad(grad, rois, p);
  CudaScope scope(grad);
  const ScalarType dtype = input.scalar_type();
  const Coordinates at(rois, offset, dtype);
  Tensor grad_offset = empty_beside(grad, {rois.size(0), 2, pooled_h, pooled_w}, opmath_dtype(dtype));
  if (grad_offset.numel() == 0) return to_dtype(grad_offset, offset.scalar_type());
  if (input.numel() == 0) return to_dtype(zero_(grad_offset), offset.scalar_type());
  const bool nhwc = is_channels_last(input);
  const Tensor x = in_layout(input, nhwc), g = in_layout(to_dtype(grad, dtype), nhwc);
  dispatch_float(dtype, "deform_roi_pool_offset_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const int64_t tasks = rois.size(0) * p.bins();
    offset_kernel<T><<<blocks_for(tasks * 32), kThreads, 0, scope.stream>>>(
        tasks, g.const_data_ptr<T>(), Layout::make(p.channels, p.bins(), nhwc), x.const_data_ptr<T>(),
        Layout::make(p.channels, p.plane(), nhwc), at.sampler<A>(p), grad_offset.mutable_data_ptr<A>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return to_dtype(grad_offset, offset.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("deform_roi_pool", CV_BOX(&deform_roi_pool_cuda));
  m.impl("deform_roi_pool_backward", CV_BOX(&deform_roi_pool_backward_cuda));
  m.impl("deform_roi_pool_offset_backward", CV_BOX(&deform_roi_pool_offset_backward_cuda));
}

}  // namespace cv::deform_roi_pool
