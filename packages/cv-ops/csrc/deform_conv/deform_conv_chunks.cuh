#pragma once
// The algorithm on CUDA: sample the columns of a chunk of output pixels, multiply, next chunk.
//
// A backend gives the four steps that touch samples; everything else is matrix products on views:
//   using scalar_t;                                      of columns and of the products
//   chunk_bytes()                                        how much scratch memory columns may take
//   sample(first, pixels, layout, columns)               columns of output pixels [first, first + pixels)
//   gradients(first, pixels, layout, columns, grads)     from the gradient of those columns
//   accumulate(sum, part, n)                             sum += part

#include <algorithm>
#include <optional>

#include "../common/matmul.h"
#include "../common/memory_format.h"
#include "deform_conv_columns.h"

namespace cv::deform_conv {

template <typename Backend>
class Driver {
  using T = typename Backend::scalar_t;

 public:
  Driver(const Backend& backend, const Inputs& in, const Geometry& g)
      : backend_(backend), in_(in), g_(g), chunk_(chunk_pixels(backend, g)) {
    columns_owner_ = empty_beside(in.input, {chunk_ * g.channels * g.taps()}, in.dtype);
    columns_ = columns_owner_->template mutable_data_ptr<T>();
  }

  // out (N, Cout, out_h, out_w), stored channels last if nhwc; without the bias.
  void forward(T* out, bool nhwc) const {
    for_each_chunk([&](int64_t first, int64_t pixels, const ColumnLayout& layout) {
      backend_.sample(first, pixels, layout, columns_);
      for_each_product(first, pixels, nhwc, [&](int64_t group, int64_t at, int64_t count) {
        matmul_out(out_matrix(out, nhwc, group, at, count), weight_matrix(group),
                   columns_transposed(layout, group, at - first, count));
      });
    });
  }

  template <typename A>
  void backward(const T* grad_out, bool nhwc, const Gradients<A>& grads) const {
    const int64_t part_size = g_.group_out_channels() * g_.group_columns();
    const Tensor part_owner = empty_beside(in_.input, {grads.weight ? part_size : 0}, in_.dtype);
    T* part = part_owner.mutable_data_ptr<T>();
    for_each_chunk([&](int64_t first, int64_t pixels, const ColumnLayout& layout) {
      if (grads.input || grads.offset) {
        for_each_product(first, pixels, nhwc, [&](int64_t group, int64_t at, int64_t count) {
          const Tensor grad = out_matrix(grad_out, nhwc, group, at, count);
          matmul_out(columns_matrix(layout, group, at - first, count), torch::stable::transpose(grad, 0, 1),
                     weight_matrix(group));
        });
        backend_.gradients(first, pixels, layout, columns_, grads);
      }
      if (grads.weight) {
        backend_.sample(first, pixels, layout, columns_);
        for_each_product(first, pixels, nhwc, [&](int64_t group, int64_t at, int64_t count) {
          matmul_out(matrix(part, g_.group_out_channels(), g_.group_columns(), g_.group_columns(), 1),
                     out_matrix(grad_out, nhwc, group, at, count), columns_matrix(layout, group, at - first, count));
          backend_.accumulate(grads.weight + group * part_size, part, part_size);
        });
      }
    });
  }

 private:
  static int64_t chunk_pixels(const Backend& backend, const Geometry& g) {
    const int64_t per_pixel = g.channels * g.taps() * static_cast<int64_t>(sizeof(T));
    return std::clamp<int64_t>(backend.chunk_bytes() / per_pixel, std::min<int64_t>(64, g.pixels()), g.pixels());
  }

  template <typename F>
  void for_each_chunk(F&& f) const {
    for (int64_t first = 0; first < g_.pixels(); first += chunk_) {
      const int64_t pixels = std::min(chunk_, g_.pixels() - first);
      f(first, pixels, ColumnLayout(g_, pixels));
    }
  }

  // f(group, first, count) for [first, first + pixels), cut at the borders of images unless nhwc.
  template <typename F>
  void for_each_product(int64_t first, int64_t pixels, bool nhwc, F&& f) const {
    for (int64_t at = first, end = first + pixels; at < end;) {
      const int64_t stop = nhwc ? end : std::min(end, (at / g_.out_plane() + 1) * g_.out_plane());
      for (int64_t group = 0; group < g_.groups; ++group) f(group, at, stop - at);
      at = stop;
    }
  }

  Tensor matrix(const T* data, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride) const {
    return matrix_view(in_.input, data, in_.dtype, rows, cols, row_stride, col_stride);
  }
  // (Cout / groups, pixels) of a (N, Cout, out_h, out_w) tensor; within one image unless nhwc.
  Tensor out_matrix(const T* data, bool nhwc, int64_t group, int64_t first, int64_t pixels) const {
    const int64_t rows = g_.group_out_channels(), plane = g_.out_plane(), c = group * rows;
    if (nhwc) return matrix(data + first * g_.out_channels + c, rows, pixels, 1, g_.out_channels);
    return matrix(data + (first / plane * g_.out_channels + c) * plane + first % plane, rows, pixels, plane, 1);
  }
  // (pixels, taps * C / groups)
  Tensor columns_matrix(const ColumnLayout& layout, int64_t group, int64_t first, int64_t pixels) const {
    return matrix(columns_ + group * layout.group + first * layout.row, pixels, layout.row, layout.row, 1);
  }
  Tensor columns_transposed(const ColumnLayout& layout, int64_t group, int64_t first, int64_t pixels) const {
    return matrix(columns_ + group * layout.group + first * layout.row, layout.row, pixels, 1, layout.row);
  }
  // (Cout / groups, taps * C / groups)
  Tensor weight_matrix(int64_t group) const {
    const int64_t rows = g_.group_out_channels(), cols = g_.group_columns();
    return matrix(in_.weight.const_data_ptr<T>() + group * rows * cols, rows, cols, cols, 1);
  }

  const Backend& backend_;
  const Inputs& in_;
  const Geometry& g_;
  int64_t chunk_;
  std::optional<Tensor> columns_owner_;
  T* columns_ = nullptr;
};

}  // namespace cv::deform_conv
