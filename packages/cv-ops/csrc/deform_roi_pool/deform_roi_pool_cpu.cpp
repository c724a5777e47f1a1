// Deformable RoI pooling on the CPU. The pooling itself and the gradient of the map are in common/roi_mean_cpu.h.

#include "../common/roi_mean_cpu.h"
#include "deform_roi_pool_args.h"

namespace cv::deform_roi_pool {
namespace {

using torch::stable::parallel_for;

Tensor deform_roi_pool_cpu(const Tensor& input, const Tensor& rois, std::optional<Tensor> offset, double spatial_scale,
                           int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio, double gamma) {
  check_map(input, rois);
  const Params p = make_params(rois, offset, input.size(0), input.size(1), input.size(2), input.size(3), spatial_scale,
                               pooled_h, pooled_w, sampling_ratio, gamma);
  const Coordinates at(rois, offset, input.scalar_type());
  Tensor out;
  dispatch_float_double(opmath_dtype(input.scalar_type()), "deform_roi_pool", [&](auto t) {
    using T = typename decltype(t)::type;
    const Sampler<T> sampler = at.sampler<T>(p);
    roi::check_images("deform_roi_pool", sampler.rois, rois.size(0), 5, p.batch);
    out = roi::mean_cpu<T>(input, sampler, rois.size(0));
  });
  return to_dtype(std::move(out), input.scalar_type());
}

Tensor deform_roi_pool_backward_cpu(const Tensor& grad, const Tensor& rois, std::optional<Tensor> offset,
                                    double spatial_scale, int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio,
                                    double gamma, int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last_input,
                                    bool /*deterministic: always so here*/) {
  const Params p =
      make_params(rois, offset, n, c, h, w, spatial_scale, pooled_h, pooled_w, sampling_ratio, gamma);
  check_grad(grad, rois, p);
  const Coordinates at(rois, offset, grad.scalar_type());
  Tensor grad_input;
  dispatch_float_double(opmath_dtype(grad.scalar_type()), "deform_roi_pool_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    grad_input = roi::mean_backward_cpu<T>(grad, at.sampler<T>(p), channels_last_input);
  });
  return to_dtype(grad_input, grad.scalar_type());
}

// The pixels of one bin, each once, and how much the bin's mean changes with each when the bin moves.
template <typename T>
struct Slopes {
  std::vector<int32_t> pixel, slots;
  std::vector<T> y, x;

  void build(const Sampler<T>& sampler, const Region<T>& r, int64_t k, int64_t ph, int64_t pw) {
    const Params& p = sampler.p;
    merge = r.count > T(1) && p.channels >= roi::kFewChannels;
    if (merge) slots.resize(p.plane(), -1);
    pixel.clear();
    y.clear();
    x.clear();
    sampler.for_each_slope(r, k, ph, pw, [&](const Tap<T>& ty, const Tap<T>& tx, bool sy, bool sx) {
      const int32_t rows[2] = {ty.low, ty.high}, columns[2] = {tx.low, tx.high};
      const T wy[2] = {ty.weight_low, ty.weight_high}, wx[2] = {tx.weight_low, tx.weight_high}, sign[2] = {-1, 1};
      for (int i = 0; i < (ty.high > ty.low ? 2 : 1); ++i)
        for (int j = 0; j < (tx.high > tx.low ? 2 : 1); ++j)
          add(static_cast<int64_t>(rows[i]) * p.width + columns[j], sy ? sign[i] * wx[j] : T(0),
              sx ? wy[i] * sign[j] : T(0));
    });
    if (!merge) return;
    for (const int32_t at : pixel) slots[at] = -1;
  }

 private:
  bool merge = false;  // whether samples may read the same pixel, and reading it costs more than finding out

  void add(int64_t at, T dy, T dx) {
    if (!merge || slots[at] < 0) {
      if (merge) slots[at] = static_cast<int32_t>(pixel.size());
      pixel.push_back(static_cast<int32_t>(at));
      y.push_back(dy);
      x.push_back(dx);
    } else {
      y[slots[at]] += dy;
      x[slots[at]] += dx;
    }
  }
};

template <typename T>
CV_HD T dot(const T* a, const T* b, int64_t count) {
  using V = Vec<T>;
  V s0 = V::zero(), s1 = V::zero();
  int64_t c = 0;
  for (; c + 2 * V::size <= count; c += 2 * V::size) {
    s0 += V::load(a + c) * V::load(b + c);
    s1 += V::load(a + c + V::size) * V::load(b + c + V::size);
  }
  T sum = (s0 + s1).sum();
  for (; c < count; ++c) sum += a[c] * b[c];
  return sum;
}

// The same of b wherever its channels lie
template <typename T>
CV_HD T dot_gathered(const T* a, const T* b, int64_t channel, int64_t count) {
  T sums[roi::kLanes] = {}, sum = T(0);
  int64_t c = 0;
  for (; c + roi::kLanes <= count; c += roi::kLanes)
    for (int64_t i = 0; i < roi::kLanes; ++i) sums[i] += a[c + i] * b[(c + i) * channel];
  for (; c < count; ++c) sum += a[c] * b[c * channel];
  for (int64_t i = 0; i < roi::kLanes; ++i) sum += sums[i];
  return sum;
}

// x (N, H, W, C) if nhwc, else (N, C, H, W); grad_offset (K, {x, y}, bins)
template <typename T>
void offset_gradient(const T* x, bool nhwc, const roi::OutputGrad<T>& grad, const Sampler<T>& sampler, int64_t count,
                     double work, T* grad_offset) {
  const Params& p = sampler.p;
  const roi::Strides in = roi::Strides::of(nhwc, p.channels, p.plane());
  parallel_for(0, count, roi::grain_of_tasks(work, count), [&](int64_t begin, int64_t end) {
    Slopes<T> slopes;
    std::vector<T> buffer(p.bins() * p.channels);
    for (int64_t k = begin; k < end; ++k) {
      const Region<T> r = sampler.region(k);
      T* to = grad_offset + 2 * k * p.bins();
      std::fill_n(to, 2 * p.bins(), T(0));
      if (r.image < 0) continue;
      const T* image = x + r.image * p.plane() * p.channels;
      int64_t stride;
      const T* g = grad.block(p, k, 0, p.channels, buffer.data(), stride);
      for (int64_t b = 0; b < p.bins(); ++b) {
        slopes.build(sampler, r, k, b / p.pooled_w, b % p.pooled_w);
        T dy = T(0), dx = T(0);
        vectorized([&] {
          for (size_t e = 0; e < slopes.pixel.size(); ++e) {
            const T* at = image + slopes.pixel[e] * in.item;
            const T d = nhwc ? dot(g + b * stride, at, p.channels)
                             : dot_gathered(g + b * stride, at, in.channel, p.channels);
            dy += slopes.y[e] * d;
            dx += slopes.x[e] * d;
          }
        });
        to[b] = sampler.gain_x(r) * dx / r.count;
        to[p.bins() + b] = sampler.gain_y(r) * dy / r.count;
      }
    }
  });
}

Tensor deform_roi_pool_offset_backward_cpu(const Tensor& grad, const Tensor& input, const Tensor& rois,
                                           const Tensor& offset, double spatial_scale, int64_t pooled_h,
                                           int64_t pooled_w, int64_t sampling_ratio, double gamma) {
  check_map(input, rois);
  const Params p = make_params(rois, offset, input.size(0), input.size(1), input.size(2), input.size(3), spatial_scale,
                               pooled_h, pooled_w, sampling_ratio, gamma);
  check_grad(grad, rois, p);
  const ScalarType acc = opmath_dtype(input.scalar_type());
  const Coordinates at(rois, offset, acc);
  Tensor grad_offset = empty_beside(grad, {rois.size(0), 2, pooled_h, pooled_w}, acc);
  if (grad_offset.numel() == 0) return to_dtype(grad_offset, offset.scalar_type());
  const bool nhwc = is_channels_last(grad);
  const Tensor from = to_dtype(grad, acc), g = nhwc ? from : as_contiguous(from);
  dispatch_float_double(acc, "deform_roi_pool_offset_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    T* to = grad_offset.mutable_data_ptr<T>();
    if (input.numel() == 0) {
      std::fill_n(to, grad_offset.numel(), T(0));
      return;
    }
    const Sampler<T> sampler = at.sampler<T>(p);
    const double read = roi::pixels_read(sampler, rois.size(0)), work = read * static_cast<double>(p.channels);
    const bool in_order = has_channels_last_order(input);
    const bool turn = !in_order && p.channels >= roi::kFewChannels && roi::reads_more(read, roi::kTurnFrom, p);
    const Tensor map = to_opmath(input), x = in_order || turn ? channels_last(map) : as_contiguous(map);
    offset_gradient(x.const_data_ptr<T>(), in_order || turn, roi::OutputGrad<T>{g.const_data_ptr<T>(), nhwc}, sampler,
                    rois.size(0), work, to);
  });
  return to_dtype(grad_offset, offset.scalar_type());
}

}  // namespace

#define CV_DEFORM_ROI_POOL_NUMBERS "float spatial_scale, int pooled_h, int pooled_w, int sampling_ratio, float gamma"
STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("deform_roi_pool(Tensor input, Tensor rois, Tensor? offset, " CV_DEFORM_ROI_POOL_NUMBERS ") -> Tensor");
  m.def("deform_roi_pool_backward(Tensor grad, Tensor rois, Tensor? offset, " CV_DEFORM_ROI_POOL_NUMBERS
        ", SymInt n, SymInt c, SymInt h, SymInt w, bool channels_last, bool deterministic) -> Tensor");
  m.def("deform_roi_pool_offset_backward(Tensor grad, Tensor input, Tensor rois, Tensor offset, "
        CV_DEFORM_ROI_POOL_NUMBERS ") -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("deform_roi_pool", CV_BOX(&deform_roi_pool_cpu));
  m.impl("deform_roi_pool_backward", CV_BOX(&deform_roi_pool_backward_cpu));
  m.impl("deform_roi_pool_offset_backward", CV_BOX(&deform_roi_pool_offset_backward_cpu));
}

}  // namespace cv::deform_roi_pool
