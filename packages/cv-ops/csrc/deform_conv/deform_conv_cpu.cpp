// Deformable convolution on the CPU: sample columns for a chunk of output pixels, multiply, next chunk.
//
// The driver is in deform_conv_columns.h; depthwise convolutions and the forward pass of few channels have their own.
// The input is read as (N, H, W, C), so that a sample is four runs of channels and vectorises whatever the offsets
// are. A chunk's columns stay in the cache between sampling and the product (MKL through torch),
// and scratch memory is bounded whatever the size of the map. Half types are computed in float32.
//
// Everything here is deterministic, and gradients do not depend on the number of threads: each element
// of grad_input belongs to one task, which adds into it in the order of pixels and taps.

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/memory_format.h"
#include "../common/transpose.h"
#include "../common/vec.h"
#include "deform_conv_columns.h"
#include "deform_conv_depthwise_cpu.h"
#include "deform_conv_planes_cpu.h"

namespace cv::deform_conv {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kSmallProduct = 4096;  // multiply-adds: fewer take less time than a call of the matrix product
constexpr int64_t kChunkBytes = 4 << 20;  // of columns per thread: within the last-level cache, and few enough rounds

// Inputs in the type of the arithmetic, layouts as the comments say.
template <typename T>
struct Problem {
  Geometry g;
  const T* input;   // (N, H, W, C)
  const T* offset;  // see Geometry::offset_index
  const T* mask;    // see Geometry::mask_index; null: all ones
  const T* zeros;   // C zeros, read instead of a neighbour outside the map
};

// One sample of the chunk, kept between sampling and scattering.
template <typename T>
struct Tap {
  Sample<T> sample;
  T mask;
};

// visit(first channel, count, index into the columns) for each run of channels of [begin, end) that is
// contiguous in the columns.
template <typename F>
CV_HD void for_each_run(const ColumnLayout& columns, int64_t pixel, int64_t tap, int64_t begin, int64_t end, F&& visit) {
  if (end <= columns.group_channels) return visit(begin, end - begin, columns.index(pixel, tap, begin));
  for (int64_t c = begin; c < end;) {
    const int64_t group_end = (c / columns.group_channels + 1) * columns.group_channels;
    const int64_t stop = group_end < end ? group_end : end;
    visit(c, stop - c, columns.index(pixel, tap, c));
    c = stop;
  }
}

// out[c] = sum_i w[i] * rows[i][c]
template <typename T>
CV_HD void blend(T* CV_RESTRICT out, const T* const rows[4], const T w[4], int64_t n) {
  const T *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  const T w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
  using V = Vec<T>;
  int64_t c = 0;
  for (; c + V::size <= n; c += V::size) {
    const V top = w0 * V::load(r0 + c) + w1 * V::load(r1 + c);
    (top + w2 * V::load(r2 + c) + w3 * V::load(r3 + c)).store(out + c);
  }
  for (; c < n; ++c) out[c] = w0 * r0[c] + w1 * r1[c] + w2 * r2[c] + w3 * r3[c];
}

template <typename T>
CV_HD void neighbour_rows(const Problem<T>& p, int64_t batch, const Sample<T>& s, const T* rows[4]) {
  const T* image = p.input + batch * p.g.height * p.g.width * p.g.channels;
  for (int i = 0; i < 4; ++i)
    rows[i] = s.corners >> i & 1 ? image + s.neighbour(i, p.g.width) * p.g.channels : p.zeros;
}

// visit(deform group, tap, sample, mask) for each sample of output pixel `pixel` of image `batch`.
template <typename T, typename F>
CV_HD void for_each_sample(const Problem<T>& p, int64_t batch, int64_t pixel, F&& visit) {
  const Geometry& g = p.g;
  const int64_t row0 = pixel / g.out_w * g.stride_h - g.pad_h, col0 = pixel % g.out_w * g.stride_w - g.pad_w;
  const int64_t plane = g.out_plane();
  for (int64_t dg = 0; dg < g.deform_groups; ++dg) {
    const T* offset = p.offset + g.offset_index(batch, dg, 0, pixel);
    const T* mask = p.mask ? p.mask + g.mask_index(batch, dg, 0, pixel) : nullptr;
    int64_t tap = 0;
    for (int64_t kh = 0; kh < g.kernel_h; ++kh)
      for (int64_t kw = 0; kw < g.kernel_w; ++kw, ++tap, offset += 2 * plane) {
        const Sample<T> s = locate(row0 + kh * g.dilation_h, col0 + kw * g.dilation_w, offset[0], offset[plane],
                                   g.height, g.width);
        visit(dg, tap, s, mask ? mask[tap * plane] : T(1));
      }
  }
}

// columns of chunk pixel `i`, which is output pixel `pixel` of image `batch`
template <typename T>
CV_HD void sample_pixel(const Problem<T>& p, int64_t batch, int64_t pixel, int64_t i, const ColumnLayout& layout,
                        T* columns) {
  const int64_t channels = p.g.deform_channels();
  for_each_sample(p, batch, pixel, [&](int64_t dg, int64_t tap, const Sample<T>& s, T mask) {
    const T* rows[4];
    neighbour_rows(p, batch, s, rows);
    T w[4];
    for (int k = 0; k < 4; ++k) w[k] = s.corners >> k & 1 ? mask * s.weight(k) : T(0);
    for_each_run(layout, i, tap, dg * channels, (dg + 1) * channels, [&](int64_t c, int64_t n, int64_t at) {
      if (s.corners == 0) {
        std::fill_n(columns + at, n, T(0));
        return;
      }
      const T* here[4] = {rows[0] + c, rows[1] + c, rows[2] + c, rows[3] + c};
      blend(columns + at, here, w, n);
    });
  });
}

// grad_offset and grad_mask of one pixel from the gradient of its columns
template <typename T>
CV_HD void grad_pixel(const Problem<T>& p, int64_t batch, int64_t pixel, int64_t i, const ColumnLayout& layout,
                      const T* grad_columns, T* grad_offset, T* grad_mask) {
  const Geometry& g = p.g;
  const int64_t channels = g.deform_channels();
  for_each_sample(p, batch, pixel, [&](int64_t dg, int64_t tap, const Sample<T>& s, T mask) {
    T d[4] = {T(0), T(0), T(0), T(0)};
    if (s.corners != 0) {
      const T* rows[4];
      neighbour_rows(p, batch, s, rows);
      for_each_run(layout, i, tap, dg * channels, (dg + 1) * channels, [&](int64_t c, int64_t n, int64_t at) {
        const T* here[4] = {rows[0] + c, rows[1] + c, rows[2] + c, rows[3] + c};
        dot_rows(d, grad_columns + at, here, n);
      });
    }
    const SampleGrad<T> grad = sample_grad(s, mask, d);
    T* to = grad_offset + g.offset_index(batch, dg, tap, pixel);
    to[0] = grad.offset_y;
    to[g.out_plane()] = grad.offset_x;
    if (grad_mask) grad_mask[g.mask_index(batch, dg, tap, pixel)] = grad.mask;
  });
}

// A share of the rows of a map: every `bands`th pair of rows.
struct Band {
  uint32_t index, bands;

  CV_HD bool has(int32_t row) const { return static_cast<uint32_t>(row) / 2 % bands == index; }
  // Corner bits that lie in the band, for a sample whose top row is `row`.
  CV_HD uint32_t corners(int32_t row) const {
    if (bands == 1) return 15;
    return (has(row) ? kTopLeft | kTopRight : 0u) | (has(row + 1) ? kBottomLeft | kBottomRight : 0u);
  }
};

// Adds a chunk's column gradients into grad_input (N, H, W, C), for the channels [begin, end) and one band.
template <typename T>
CV_HD void scatter(const Geometry& g, const Tap<T>* taps, int64_t first_pixel, int64_t pixels,
                   const ColumnLayout& layout, const T* grad_columns, int64_t begin, int64_t end, Band band,
                   T* grad_input) {
  const int64_t channels = g.deform_channels(), plane = g.out_plane();
  for (int64_t i = 0; i < pixels; ++i) {
    T* image = grad_input + (first_pixel + i) / plane * g.height * g.width * g.channels;
    for (int64_t dg = begin / channels; dg * channels < end; ++dg) {
      const Tap<T>* tap = taps + (i * g.deform_groups + dg) * g.taps();
      const int64_t from = std::max(begin, dg * channels), to = std::min(end, (dg + 1) * channels);
      for (int64_t k = 0; k < g.taps(); ++k, ++tap) {
        const Sample<T>& s = tap->sample;
        const uint32_t mine = s.corners & band.corners(s.row);
        if (mine == 0) continue;
        for_each_run(layout, i, k, from, to, [&](int64_t c, int64_t n, int64_t column) {
          for (int corner = 0; corner < 4; ++corner)
            if (mine >> corner & 1)
              add_scaled(image + s.neighbour(corner, g.width) * g.channels + c, grad_columns + column,
                         tap->mask * s.weight(corner), n);
        });
      }
    }
  }
}

template <typename T>
void sample_chunk(const Problem<T>& p, int64_t first, int64_t pixels, const ColumnLayout& layout, T* columns) {
  const int64_t plane = p.g.out_plane();
  parallel_for(0, pixels, 16, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t i = begin; i < end; ++i)
        sample_pixel(p, (first + i) / plane, (first + i) % plane, i, layout, columns);
    });
  });
}

template <typename T>
void grad_chunk(const Problem<T>& p, int64_t first, int64_t pixels, const ColumnLayout& layout, const T* grad_columns,
                T* grad_offset, T* grad_mask) {
  const int64_t plane = p.g.out_plane();
  parallel_for(0, pixels, 16, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t i = begin; i < end; ++i)
        grad_pixel(p, (first + i) / plane, (first + i) % plane, i, layout, grad_columns, grad_offset, grad_mask);
    });
  });
}

template <typename T>
void scatter_chunk(const Problem<T>& p, int64_t first, int64_t pixels, const ColumnLayout& layout,
                   const T* grad_columns, T* grad_input) {
  const Geometry& g = p.g;
  const int64_t plane = g.out_plane(), per_pixel = g.deform_groups * g.taps();
  std::vector<Tap<T>> taps(pixels * per_pixel);
  parallel_for(0, pixels, 64, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t i = begin; i < end; ++i)
        for_each_sample(p, (first + i) / plane, (first + i) % plane,
                        [&](int64_t dg, int64_t tap, const Sample<T>& s, T mask) {
                          taps[i * per_pixel + dg * g.taps() + tap] = {s, mask};
                        });
    });
  });
  // Blocks of channels, whole cache lines and long enough to be worth finding the sample for; where there are
  // fewer than threads, bands of rows too.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t line = Vec<T>::size;
  const int64_t block = std::max(4 * line, (g.channels / threads + line - 1) / line * line);
  const int64_t blocks = (g.channels + block - 1) / block, bands = (threads + blocks - 1) / blocks;
  parallel_for(0, blocks * bands, 1, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t c = task % blocks * block;
        scatter(g, taps.data(), first, pixels, layout, grad_columns, c, std::min(c + block, g.channels),
                Band{static_cast<uint32_t>(task / blocks), static_cast<uint32_t>(bands)}, grad_input);
      }
    });
  });
}

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

// The steps that deform_conv_columns.h asks a backend for.
template <typename T>
struct CpuBackend {
  using scalar_t = T;
  Problem<T> p;

  int64_t chunk_bytes() const { return kChunkBytes * torch::stable::get_num_threads(); }

  void sample(int64_t first, int64_t pixels, const ColumnLayout& layout, T* columns) const {
    sample_chunk(p, first, pixels, layout, columns);
  }
  void gradients(int64_t first, int64_t pixels, const ColumnLayout& layout, const T* grad_columns,
                 const Gradients<T>& grads) const {
    if (grads.offset) grad_chunk(p, first, pixels, layout, grad_columns, grads.offset, grads.mask);
    if (grads.input) scatter_chunk(p, first, pixels, layout, grad_columns, grads.input);
  }
  void accumulate(T* sum, const T* part, int64_t n) const {
    vectorized([&] { add_scaled(sum, part, T(1), n); });
  }
};

template <typename T>
CpuBackend<T> make_backend(const Inputs& in, const Geometry& g, const std::vector<T>& zeros) {
  return {Problem<T>{g, in.input.const_data_ptr<T>(), in.offset.const_data_ptr<T>(),
                     in.mask ? in.mask->const_data_ptr<T>() : nullptr, zeros.data()}};
}

// What Driver::forward does, where a matrix product would mostly be its call.
template <typename T>
void small_forward(const CpuBackend<T>& backend, const Inputs& in, const Geometry& g, T* out, bool nhwc) {
  const int64_t pixels = g.pixels(), plane = g.out_plane(), inner = g.group_columns(), rows = g.group_out_channels();
  const ColumnLayout layout(g, pixels);
  std::vector<T> columns(pixels * g.channels * g.taps());
  backend.sample(0, pixels, layout, columns.data());
  const T* weight = in.weight.const_data_ptr<T>();
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t c = 0; c < g.out_channels; ++c) {
      const T *a = columns.data() + c / rows * layout.group + p * layout.row, *b = weight + c * inner;
      T sum = T(0);
      for (int64_t i = 0; i < inner; ++i) sum += a[i] * b[i];
      out[nhwc ? p * g.out_channels + c : (p / plane * g.out_channels + c) * plane + p % plane] = sum;
    }
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
      const std::vector<T> zeros(g.channels);
      if (is_depthwise(g)) {
        const auto backend = make_backend<T>(in, as_one_group(g), zeros);
        DepthwiseDriver(backend, in, g).forward(data);
      } else if (g.pixels() * g.out_channels * g.group_columns() <= kSmallProduct) {
        small_forward(make_backend<T>(in, g, zeros), in, g, data, nhwc);
      } else {
        const auto backend = make_backend<T>(in, g, zeros);
        Driver(backend, in, g).forward(data, nhwc);
      }
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
      const std::vector<T> zeros(g.channels);
      if (is_depthwise(g)) {
        const auto backend = make_backend<T>(in, as_one_group(g), zeros);
        DepthwiseDriver(backend, in, g).backward(grad_out.const_data_ptr<T>(), grads.pointers<T>());
      } else {
        const auto backend = make_backend<T>(in, g, zeros);
        Driver(backend, in, g).backward(grad_out.const_data_ptr<T>(), nhwc, grads.pointers<T>());
      }
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
