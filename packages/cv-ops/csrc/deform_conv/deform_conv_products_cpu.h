#pragma once
// What deformable convolution on the CPU does with sampled columns: matrix products through torch, or, for depthwise
// convolutions, products element by element.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/isa.h"
#include "../common/matmul.h"
#include "../common/vec.h"
#include "deform_conv_blocks_cpu.h"

namespace cv::deform_conv {

// The output and its gradient are stored channels last if `nhwc`.
template <typename T>
class MatrixProduct {
 public:
  MatrixProduct(const Geometry& g, const Inputs& in, bool nhwc)
      : g_(g), in_(in), nhwc_(nhwc), small_(g.pixels() * g.out_channels * g.group_columns() <= kSmall) {}

  const Tensor& like() const { return in_.input; }
  ScalarType dtype() const { return in_.dtype; }
  int64_t block_bytes() const { return 4 << 20; }  // the product wants more pixels than fit the second cache
  int64_t rows() const { return g_.group_out_channels(); }
  int64_t weights() const { return g_.out_channels * g_.group_columns(); }
  bool cuts_taps() const { return g_.group_channels() >= 64; }

  void forward(Block block, const T* columns, T* out) const {
    if (small_) return small_forward(block, columns, out);
    for_each_product(block, [&](int64_t group, int64_t first, int64_t pixels) {
      matmul_out(out_matrix(out, group, first, pixels), weight_matrix(group),
                 torch::stable::transpose(columns_matrix(block, g_.taps(), columns, group, first, pixels), 0, 1));
    });
  }

  void column_grads(Block block, const T* grad_out, T* columns) const {
    for_each_product(block, [&](int64_t group, int64_t first, int64_t pixels) {
      matmul_out(columns_matrix(block, g_.taps(), columns, group, first, pixels),
                 torch::stable::transpose(out_matrix(grad_out, group, first, pixels), 0, 1), weight_matrix(group));
    });
  }

  void weight_grads(Block block, Taps taps, const T* columns, const T* grad_out, T* sum, bool fresh) const {
    const int64_t channels = g_.group_channels(), width = (taps.end - taps.begin) * channels;
    const Tensor more_owner = empty_beside(like(), {rows() * width}, dtype());
    T* more = more_owner.mutable_data_ptr<T>();
    for_each_product(block, [&](int64_t group, int64_t first, int64_t pixels) {
      T* to = sum + group * rows() * g_.group_columns() + taps.begin * channels;
      const Tensor part = matrix(to, rows(), width, g_.group_columns(), 1);
      const Tensor grad = out_matrix(grad_out, group, first, pixels);
      const Tensor sampled = columns_matrix(block, taps.end - taps.begin, columns, group, first, pixels);
      if (fresh && first == block.first) return matmul_out(part, grad, sampled);
      matmul_out(matrix(more, rows(), width, width, 1), grad, sampled);
      vectorized([&] {
        for (int64_t r = 0; r < rows(); ++r)
          add_scaled(to + r * g_.group_columns(), more + r * width, T(1), width);
      });
    });
  }

  void finish(T*) const {}

 private:
  static constexpr int64_t kSmall = 4096;  // multiply-adds: fewer take less time than a call of the matrix product

  // f(group, first, count) for the pixels of the block, cut at the borders of images unless nhwc.
  template <typename F>
  void for_each_product(Block block, F&& f) const {
    for (int64_t at = block.first, end = block.first + block.pixels; at < end;) {
      const int64_t stop = nhwc_ ? end : std::min(end, (at / g_.out_plane() + 1) * g_.out_plane());
      for (int64_t group = 0; group < g_.groups; ++group) f(group, at, stop - at);
      at = stop;
    }
  }

  void small_forward(Block block, const T* columns, T* out) const {
    const ColumnLayout layout(g_, block.pixels, g_.taps());
    const int64_t plane = g_.out_plane(), inner = g_.group_columns();
    const T* weight = in_.weight.template const_data_ptr<T>();
    for (int64_t i = 0; i < block.pixels; ++i)
      for (int64_t c = 0; c < g_.out_channels; ++c) {
        const T *a = columns + c / rows() * layout.group + i * layout.row, *b = weight + c * inner;
        T sum = T(0);
        for (int64_t k = 0; k < inner; ++k) sum += a[k] * b[k];
        const int64_t p = block.first + i;
        out[nhwc_ ? p * g_.out_channels + c : (p / plane * g_.out_channels + c) * plane + p % plane] = sum;
      }
  }

  Tensor matrix(const T* data, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride) const {
    return matrix_view(in_.input, data, in_.dtype, rows, cols, row_stride, col_stride);
  }
  // (Cout / groups, pixels) of a (N, Cout, out_h, out_w) tensor; within one image unless nhwc.
  Tensor out_matrix(const T* data, int64_t group, int64_t first, int64_t pixels) const {
    const int64_t plane = g_.out_plane(), c = group * rows();
    if (nhwc_) return matrix(data + first * g_.out_channels + c, rows(), pixels, 1, g_.out_channels);
    return matrix(data + (first / plane * g_.out_channels + c) * plane + first % plane, rows(), pixels, plane, 1);
  }
  // (pixels, taps * C / groups)
  Tensor columns_matrix(Block block, int64_t taps, const T* columns, int64_t group, int64_t first,
                        int64_t pixels) const {
    const ColumnLayout layout(g_, block.pixels, taps);
    return matrix(columns + group * layout.group + (first - block.first) * layout.row, pixels, layout.row, layout.row,
                  1);
  }
  // (Cout / groups, taps * C / groups)
  Tensor weight_matrix(int64_t group) const {
    const int64_t cols = g_.group_columns();
    return matrix(in_.weight.template const_data_ptr<T>() + group * rows() * cols, rows(), cols, cols, 1);
  }

  const Geometry& g_;
  const Inputs& in_;
  bool nhwc_, small_;
};

inline bool is_depthwise(const Geometry& g) { return g.groups == g.channels && g.groups > 1; }

// The same convolution as the sampling steps shall see it.
inline Geometry as_one_group(Geometry g) {
  g.groups = 1;
  return g;
}

// out[c * times + j] += weight[c * times + j] * column[c]
template <typename T>
CV_HD void add_products(T* CV_RESTRICT out, const T* CV_RESTRICT weight, const T* CV_RESTRICT column, int64_t channels,
                        int64_t times) {
  using V = Vec<T>;
  int64_t c = 0;
  if (times == 1)
    for (; c + V::size <= channels; c += V::size)
      (V::load(out + c) + V::load(weight + c) * V::load(column + c)).store(out + c);
  for (; c < channels; ++c)
    for (int64_t j = c * times; j < (c + 1) * times; ++j) out[j] += weight[j] * column[c];
}

// column[c] = sum over j of weight[c * times + j] * grad[c * times + j]
template <typename T>
CV_HD void depthwise_column(T* CV_RESTRICT column, const T* CV_RESTRICT weight, const T* CV_RESTRICT grad, int64_t channels,
                        int64_t times) {
  using V = Vec<T>;
  int64_t c = 0;
  if (times == 1)
    for (; c + V::size <= channels; c += V::size) (V::load(weight + c) * V::load(grad + c)).store(column + c);
  for (; c < channels; ++c) {
    T sum = T(0);
    for (int64_t j = c * times; j < (c + 1) * times; ++j) sum += weight[j] * grad[j];
    column[c] = sum;
  }
}

// Depthwise convolution: each group has one input channel, and a matrix product per channel would take longer than
// all the rest. Columns are those of a single group, channels together. Output and its gradient are stored channels
// last.
template <typename T>
class DepthwiseProduct {
 public:
  DepthwiseProduct(const Geometry& g, const Inputs& in)
      : g_(g), in_(in), row_(g.taps() * g.channels), times_(g.group_out_channels()), weight_(weights()) {
    const T* weight = in.weight.const_data_ptr<T>();  // (Cout, taps)
    for (int64_t o = 0; o < g.out_channels; ++o)
      for (int64_t tap = 0; tap < g.taps(); ++tap) weight_[tap * g.out_channels + o] = weight[o * g.taps() + tap];
  }

  const Tensor& like() const { return in_.input; }
  ScalarType dtype() const { return in_.dtype; }
  int64_t block_bytes() const { return 256 << 10; }
  int64_t rows() const { return times_; }
  int64_t weights() const { return g_.taps() * g_.out_channels; }
  bool cuts_taps() const { return false; }

  void forward(Block block, const T* columns, T* out) const {
    vectorized([&] {
      for (int64_t i = 0; i < block.pixels; ++i) {
        T* to = out + (block.first + i) * g_.out_channels;
        std::fill_n(to, g_.out_channels, T(0));
        for (int64_t tap = 0; tap < g_.taps(); ++tap)
          add_products(to, weight_of(tap), columns + i * row_ + tap * g_.channels, g_.channels, times_);
      }
    });
  }

  void column_grads(Block block, const T* grad_out, T* columns) const {
    vectorized([&] {
      for (int64_t i = 0; i < block.pixels; ++i)
        for (int64_t tap = 0; tap < g_.taps(); ++tap)
          depthwise_column(columns + i * row_ + tap * g_.channels, weight_of(tap),
                           grad_out + (block.first + i) * g_.out_channels, g_.channels, times_);
    });
  }

  // All taps; the sum is (taps, Cout).
  void weight_grads(Block block, Taps, const T* columns, const T* grad_out, T* sum, bool fresh) const {
    if (fresh) std::fill_n(sum, weights(), T(0));
    vectorized([&] {
      for (int64_t i = 0; i < block.pixels; ++i)
        for (int64_t tap = 0; tap < g_.taps(); ++tap)
          add_products(sum + tap * g_.out_channels, grad_out + (block.first + i) * g_.out_channels,
                       columns + i * row_ + tap * g_.channels, g_.channels, times_);
    });
  }

  void finish(T* sum) const {
    const std::vector<T> sums(sum, sum + weights());
    for (int64_t o = 0; o < g_.out_channels; ++o)
      for (int64_t tap = 0; tap < g_.taps(); ++tap) sum[o * g_.taps() + tap] = sums[tap * g_.out_channels + o];
  }

 private:
  const T* weight_of(int64_t tap) const { return weight_.data() + tap * g_.out_channels; }

  const Geometry& g_;
  const Inputs& in_;
  int64_t row_, times_;
  std::vector<T> weight_;  // (taps, Cout)
};

}  // namespace cv::deform_conv
