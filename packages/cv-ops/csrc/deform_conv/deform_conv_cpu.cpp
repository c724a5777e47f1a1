// Deformable convolution on the CPU: sample columns for a block of output pixels, multiply, next block.
//
// The driver is in deform_conv_blocks_cpu.h; the forward pass of few channels has its own. Half types are computed in
// float32. Everything here is deterministic, and what is added in which order does not depend on the number of threads,
// but for torch's matrix product.

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/memory_format.h"
#include "../common/transpose.h"
#include "../common/vec.h"
#include "deform_conv_blocks_cpu.h"
#include "deform_conv_planes_cpu.h"
#include "deform_conv_products_cpu.h"

namespace cv::deform_conv {
namespace {

template <typename T>
CV_HD void add_value(T* out, T value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += value;
}

template <typename T>
void add_bias(T* out, const T* bias, const Geometry& g, bool nhwc) {
  const int64_t rows = nhwc ? g.pixels() : g.batch * g.out_channels, length = nhwc ? g.out_channels : g.out_plane();
  parallel_for(0, rows, std::max<int64_t>(1, 16384 / length), [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t r = begin; r < end; ++r) {
        if (nhwc)
          add_scaled(out + r * length, bias, T(1), length);
        else
          add_value(out + r * length, bias[r % g.out_channels], length);
      }
    });
  });
}

// f(driver) with the product that suits the convolution.
template <typename T, typename F>
void with_driver(const Inputs& in, const Geometry& g, bool nhwc, F&& f) {
  const std::vector<T> zeros(g.channels);
  const bool depthwise = is_depthwise(g);
  const Problem<T> p{depthwise ? as_one_group(g) : g, in.input.const_data_ptr<T>(), in.offset.const_data_ptr<T>(),
                     in.mask ? in.mask->const_data_ptr<T>() : nullptr, zeros.data()};
  if (depthwise)
    f(BlockDriver(p, DepthwiseProduct<T>(g, in)));
  else
    f(BlockDriver(p, MatrixProduct<T>(g, in, nhwc)));
}

Tensor deform_conv2d_cpu(const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask,
                         const Tensor& weight, const std::optional<Tensor>& bias, int64_t stride_h, int64_t stride_w,
                         int64_t pad_h, int64_t pad_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                         int64_t deform_groups) {
  const Geometry g = make_geometry(input, offset, mask, weight, stride_h, stride_w, pad_h, pad_w, dilation_h,
                                   dilation_w, groups, deform_groups);
  check_output(input, bias, g);
  const ScalarType dtype = input.scalar_type(), acc = opmath_dtype(dtype);
  const bool last = is_channels_last(input);
  bool planes = false;
  dispatch_float_double(acc, "deform_conv2d", [&](auto t) { planes = takes_planes<typename decltype(t)::type>(g); });
  const bool nhwc = last || (is_depthwise(g) && !planes);
  Tensor out = empty_4d(input, g.batch, g.out_channels, g.out_h, g.out_w, acc, nhwc);
  dispatch_float_double(acc, "deform_conv2d", [&](auto t) {
    using T = typename decltype(t)::type;
    T* data = out.mutable_data_ptr<T>();
    if (is_empty(g)) {
      std::fill_n(data, out.numel(), T(0));
    } else if (planes) {
      const Tensor x = last ? to_dtype(input, acc) : as_contiguous(to_dtype(input, acc)),
                   o = as_contiguous(to_dtype(offset, acc)), w = as_contiguous(to_dtype(weight, acc));
      const std::optional<Tensor> m = mask ? std::optional(as_contiguous(to_dtype(*mask, acc))) : std::nullopt;
      PlanesForward<T>(g, x, o.const_data_ptr<T>(), m ? m->const_data_ptr<T>() : nullptr, w.const_data_ptr<T>())
          .forward(data, nhwc);
    } else {
      const Inputs in(input, offset, mask, weight, acc);
      with_driver<T>(in, g, nhwc, [&](const auto& driver) { driver.forward(data); });
    }
    if (bias && out.numel() > 0) {
      const Tensor b = as_contiguous(to_dtype(*bias, acc));
      add_bias(data, b.const_data_ptr<T>(), g, nhwc);
    }
    if (!last) out = channels_first_cpu<T>(std::move(out));
  });
  return to_dtype(std::move(out), dtype);
}

// (grad_input, grad_offset, grad_mask, grad_weight); those not wanted have no elements.
std::tuple<Tensor, Tensor, Tensor, Tensor> deform_conv2d_backward_cpu(
    const Tensor& grad, const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask,
    const Tensor& weight, int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w, int64_t dilation_h,
    int64_t dilation_w, int64_t groups, int64_t deform_groups, bool want_input, bool want_offset, bool want_weight,
    bool /*deterministic: always so here*/) {
  const Geometry g = make_geometry(input, offset, mask, weight, stride_h, stride_w, pad_h, pad_w, dilation_h,
                                   dilation_w, groups, deform_groups);
  check_grad(grad, input, g);
  const ScalarType acc = opmath_dtype(input.scalar_type());
  const GradientTensors grads(g, input, offset, mask, want_input, want_offset, want_weight);
  if (!is_empty(g)) {
    const bool nhwc = is_depthwise(g) || is_channels_last(grad);
    const Tensor grad_out = nhwc ? channels_last(to_opmath(grad)) : as_contiguous(to_opmath(grad));
    dispatch_float_double(acc, "deform_conv2d_backward", [&](auto t) {
      using T = typename decltype(t)::type;
      const Inputs in(input, offset, mask, weight, acc);
      with_driver<T>(in, g, nhwc, [&](const auto& driver) {
        driver.backward(grad_out.const_data_ptr<T>(), grads.pointers<T>());
      });
    });
  }
  return grads.finish(input, offset, mask, weight);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def(
      "deform_conv2d(Tensor input, Tensor offset, Tensor? mask, Tensor weight, Tensor? bias, int stride_h, "
      "int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups, int deform_groups) -> Tensor");
  m.def(
      "deform_conv2d_backward(Tensor grad, Tensor input, Tensor offset, Tensor? mask, Tensor weight, int stride_h, "
      "int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int groups, int deform_groups, "
      "bool want_input, bool want_offset, bool want_weight, bool deterministic) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("deform_conv2d", CV_BOX(&deform_conv2d_cpu));
  m.impl("deform_conv2d_backward", CV_BOX(&deform_conv2d_backward_cpu));
}

}  // namespace cv::deform_conv
