// rotated_feature_align on CUDA. A thread has one pixel and several channels, far apart, so that neighbours read and
// write side by side in both layouts.
//
// Gradients are summed by atomics in opmath dtype. The deterministic kernel gives each channel of an image to one
// thread, which goes through the pixels.

#include <cuda/std/limits>

#include "../common/roi.cuh"
#include "rotated_feature_align_args.h"

namespace cv::rotated_feature_align {
namespace {

using roi::Corners;
using roi::in_layout;
using roi::Layout;

constexpr int64_t kChannels = 8;  // of a thread

struct Place {
  int64_t image, first, pixel;

  static __device__ __forceinline__ Place of(int64_t i, const Params& p, int64_t packs, bool nhwc) {
    if (nhwc) return Place{i / packs / p.plane(), i % packs, i / packs % p.plane()};
    return Place{i / p.plane() / packs, i / p.plane() % packs, i % p.plane()};
  }
};

template <typename T>
__global__ void align_kernel(int64_t count, const T* CV_RESTRICT x, const opmath_t<T>* CV_RESTRICT boxes, Params p,
                             Layout layout, int64_t packs, bool nhwc, T* CV_RESTRICT out) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, count) {
    const Place at = Place::of(i, p, packs, nhwc);
    const Points<A> points = make_points(boxes + 5 * (at.image * p.plane() + at.pixel), p);
    for (int64_t c = at.first; c < p.channels; c += packs) {
      const T* map = x + layout.at(at.image, c, 0);
      A sum = points.finite ? static_cast<A>(map[at.pixel * layout.pixel]) : cuda::std::numeric_limits<A>::quiet_NaN();
      for (int64_t k = 0; points.finite && k < p.points; ++k) {
        Tap<A> ty, tx;
        if (!points.tap(k, p, ty, tx)) continue;
        const Corners<A> corners(ty, tx, p.width);
#pragma unroll
        for (int j = 0; j < 4; ++j) sum += corners.weight[j] * static_cast<A>(map[corners.pixel[j] * layout.pixel]);
      }
      out[layout.at(at.image, c, at.pixel)] = static_cast<T>(sum);
    }
  }
}

// Adds what the points of one pixel have read, of one channel; grad_input holds the gradient itself before.
template <bool kAtomic, typename T, typename A>
__device__ void spread(const T* grad, const Points<A>& points, const Params& p, const Layout& layout, int64_t image,
                       int64_t c, int64_t pixel, A* grad_input) {
  const A g = static_cast<A>(grad[layout.at(image, c, pixel)]);
  A* map = grad_input + layout.at(image, c, 0);
  for (int64_t k = 0; points.finite && k < p.points; ++k) {
    Tap<A> ty, tx;
    if (!points.tap(k, p, ty, tx)) continue;
    const Corners<A> corners(ty, tx, p.width);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      A* to = map + corners.pixel[j] * layout.pixel;
      if constexpr (kAtomic) atomic_add(to, g * corners.weight[j]);
      else *to += g * corners.weight[j];
    }
  }
}

template <typename T>
__global__ void spread_kernel(int64_t count, const T* CV_RESTRICT grad, const opmath_t<T>* CV_RESTRICT boxes, Params p,
                              Layout layout, int64_t packs, bool nhwc, opmath_t<T>* grad_input) {
  CV_GRID_LOOP(int64_t, i, count) {
    const Place at = Place::of(i, p, packs, nhwc);
    const auto points = make_points(boxes + 5 * (at.image * p.plane() + at.pixel), p);
    for (int64_t c = at.first; c < p.channels; c += packs)
      spread<true>(grad, points, p, layout, at.image, c, at.pixel, grad_input);
  }
}

template <typename T>
__global__ void spread_in_order_kernel(const T* CV_RESTRICT grad, const opmath_t<T>* CV_RESTRICT boxes, Params p,
                                       Layout layout, opmath_t<T>* grad_input) {
  CV_GRID_LOOP(int64_t, i, p.batch * p.channels) {
    const int64_t image = i / p.channels, c = i - image * p.channels;
    for (int64_t pixel = 0; pixel < p.plane(); ++pixel) {
      const auto points = make_points(boxes + 5 * (image * p.plane() + pixel), p);
      spread<false>(grad, points, p, layout, image, c, pixel, grad_input);
    }
  }
}

Tensor rotated_feature_align_cuda(const Tensor& features, const Tensor& boxes, double spatial_scale, int64_t points) {
  const Params p = make_params(features, boxes, spatial_scale, points);
  const CudaScope scope(features);
  const bool nhwc = is_channels_last(features);
  const Tensor x = in_layout(features, nhwc), at = box_tensor(boxes, x.scalar_type());
  const Tensor out = empty_4d(x, p.batch, p.channels, p.height, p.width, x.scalar_type(), nhwc);
  if (out.numel() == 0) return out;
  const Layout layout = Layout::make(p.channels, p.plane(), nhwc);
  const int64_t packs = (p.channels + kChannels - 1) / kChannels, count = p.batch * packs * p.plane();
  dispatch_float(x.scalar_type(), "rotated_feature_align", [&](auto t) {
    using T = typename decltype(t)::type;
    align_kernel<T><<<blocks_for(count), kThreads, 0, scope.stream>>>(count, x.const_data_ptr<T>(),
                                                                      at.const_data_ptr<opmath_t<T>>(), p, layout,
                                                                      packs, nhwc, out.mutable_data_ptr<T>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

Tensor rotated_feature_align_backward_cuda(const Tensor& grad, const Tensor& boxes, double spatial_scale,
                                           int64_t points, bool deterministic) {
  const Params p = make_params(grad, boxes, spatial_scale, points);
  const CudaScope scope(grad);
  const bool nhwc = is_channels_last(grad);
  const Tensor g = in_layout(grad, nhwc), at = box_tensor(boxes, g.scalar_type());
  const bool half = opmath_dtype(g.scalar_type()) != g.scalar_type();
  const Tensor out = half ? to_opmath(g) : Tensor(torch::stable::clone(g));
  if (out.numel() == 0) return to_dtype(out, grad.scalar_type());
  const Layout layout = Layout::make(p.channels, p.plane(), nhwc);
  const int64_t packs = (p.channels + kChannels - 1) / kChannels, count = p.batch * packs * p.plane();
  dispatch_float(g.scalar_type(), "rotated_feature_align_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    const T* from = g.const_data_ptr<T>();
    const A* box = at.const_data_ptr<A>();
    A* to = out.mutable_data_ptr<A>();
    if (deterministic)
      spread_in_order_kernel<T><<<blocks_for(p.batch * p.channels, 32), 32, 0, scope.stream>>>(from, box, p, layout, to);
    else
      spread_kernel<T><<<blocks_for(count), kThreads, 0, scope.stream>>>(count, from, box, p, layout, packs, nhwc, to);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return to_dtype(out, grad.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("rotated_feature_align", CV_BOX(&rotated_feature_align_cuda));
  m.impl("rotated_feature_align_backward", CV_BOX(&rotated_feature_align_backward_cuda));
}

}  // namespace cv::rotated_feature_align
