#pragma once
// Depthwise deformable convolution on the CPU: each group has one input channel. Matrix products of one column per
// channel would take longer than all the rest, so columns are sampled as for a single group, channels together, and
// multiplied by the weight element by element.

#include <algorithm>
#include <vector>

#include "../common/isa.h"
#include "../common/vec.h"
#include "deform_conv_columns.h"

namespace cv::deform_conv {

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
CV_HD void column_grads(T* CV_RESTRICT column, const T* CV_RESTRICT weight, const T* CV_RESTRICT grad, int64_t channels,
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

// Output and its gradient are stored channels last. `Backend`: as for Driver, of the convolution as one group.
template <typename Backend>
class DepthwiseDriver {
  using T = typename Backend::scalar_t;

 public:
  DepthwiseDriver(const Backend& backend, const Inputs& in, const Geometry& g)
      : backend_(backend), g_(g), one_(as_one_group(g)), row_(g.taps() * g.channels), times_(g.group_out_channels()) {
    const int64_t bytes = row_ * static_cast<int64_t>(sizeof(T));
    chunk_ = std::clamp<int64_t>(backend.chunk_bytes() / 4 / bytes, std::min<int64_t>(64, g.pixels()), g.pixels());
    columns_owner_ = empty_beside(in.input, {chunk_ * row_}, in.dtype);
    columns_ = columns_owner_->template mutable_data_ptr<T>();
    const T* weight = in.weight.const_data_ptr<T>();  // (Cout, taps)
    weight_.resize(g.taps() * g.out_channels);
    for (int64_t o = 0; o < g.out_channels; ++o)
      for (int64_t tap = 0; tap < g.taps(); ++tap) weight_[tap * g.out_channels + o] = weight[o * g.taps() + tap];
  }

  void forward(T* out) const {
    for_each_chunk([&](int64_t first, int64_t pixels, const ColumnLayout& layout) {
      backend_.sample(first, pixels, layout, columns_);
      for_each_pixel(pixels, [&](int64_t i) {
        T* to = out + (first + i) * g_.out_channels;
        std::fill_n(to, g_.out_channels, T(0));
        for (int64_t tap = 0; tap < g_.taps(); ++tap)
          add_products(to, weight_of(tap), columns_ + i * row_ + tap * g_.channels, g_.channels, times_);
      });
    });
  }

  template <typename A>
  void backward(const T* grad, const Gradients<A>& grads) const {
    std::vector<T> sums(grads.weight ? weight_.size() : 0);
    for_each_chunk([&](int64_t first, int64_t pixels, const ColumnLayout& layout) {
      const T* g = grad + first * g_.out_channels;
      if (grads.input || grads.offset) {
        for_each_pixel(pixels, [&](int64_t i) {
          for (int64_t tap = 0; tap < g_.taps(); ++tap)
            column_grads(columns_ + i * row_ + tap * g_.channels, weight_of(tap), g + i * g_.out_channels, g_.channels,
                         times_);
        });
        backend_.gradients(first, pixels, layout, columns_, grads);
      }
      if (grads.weight) {
        backend_.sample(first, pixels, layout, columns_);
        add_weight_grads(pixels, g, sums.data());
      }
    });
    for (int64_t o = 0; grads.weight && o < g_.out_channels; ++o)
      for (int64_t tap = 0; tap < g_.taps(); ++tap) grads.weight[o * g_.taps() + tap] = sums[tap * g_.out_channels + o];
  }

 private:
  const T* weight_of(int64_t tap) const { return weight_.data() + tap * g_.out_channels; }

  template <typename F>
  void for_each_chunk(F&& f) const {
    for (int64_t first = 0; first < g_.pixels(); first += chunk_) {
      const int64_t pixels = std::min(chunk_, g_.pixels() - first);
      f(first, pixels, ColumnLayout(one_, pixels));
    }
  }

  template <typename F>
  static void for_each_pixel(int64_t pixels, F&& f) {
    torch::stable::parallel_for(0, pixels, 16, [&](int64_t begin, int64_t end) {
      vectorized([&] {
        for (int64_t i = begin; i < end; ++i) f(i);
      });
    });
  }

  // A tap belongs to one task, which adds pixel after pixel.
  void add_weight_grads(int64_t pixels, const T* grad, T* sums) const {
    torch::stable::parallel_for(0, g_.taps(), 1, [&](int64_t begin, int64_t end) {
      vectorized([&] {
        for (int64_t i = 0; i < pixels; ++i)
          for (int64_t tap = begin; tap < end; ++tap)
            add_products(sums + tap * g_.out_channels, grad + i * g_.out_channels,
                         columns_ + i * row_ + tap * g_.channels, g_.channels, times_);
      });
    });
  }

  const Backend& backend_;
  Geometry g_, one_;
  int64_t row_, times_, chunk_;
  std::optional<Tensor> columns_owner_;
  T* columns_ = nullptr;
  std::vector<T> weight_;  // (taps, Cout)
};

}  // namespace cv::deform_conv
