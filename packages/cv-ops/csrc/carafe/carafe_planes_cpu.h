#pragma once
// CARAFE with vectors along the rows of the output instead of along channels: for contiguous maps, which then need
// not be turned, and for groups of few channels.
//
// Maps are copied to rows (N, H, C, columns) with zeros on both sides, features with each pixel repeated `scale` times,
// so that the neighbour of tap kx of the outputs j, j + 1, … is a run of memory, kx * scale further. What a block of a
// row's outputs has in common for all channels, the masks of its terms, is gathered once, with zeros for neighbours
// that are outside.

#include <cmath>
#include <numeric>
#include <vector>

#include "../common/isa.h"
#include "../common/parallel.h"
#include "../common/torch_stable.h"
#include "../common/vec.h"
#include "carafe.h"

namespace cv::carafe {

// Where element (n, c, pixel) of a map lies.
struct MapStrides {
  int64_t image, channel, pixel;

  MapStrides(int64_t channels, int64_t plane, bool last)
      : image(channels * plane), channel(last ? 1 : plane), pixel(last ? channels : 1) {}
};

// A map as (N, H, C, row): `margin` zeros, each pixel of a row `repeats` times, zeros to the end.
template <typename T>
class Rows {
 public:
  Rows(const Tensor& map, const Params& p, int64_t repeats, bool last)
      : channels_(p.channels), height_(repeats == 1 ? p.out_height() : p.height) {
    constexpr int64_t lanes = Vec<T>::size;
    margin = p.kernel / 2 * p.scale;
    const int64_t used = margin + p.out_width();
    row = (p.out_width() + lanes - 1) / lanes * lanes + 2 * margin;
    owner_ = empty_beside(map, {p.batch * height_, p.channels, row}, map.scalar_type());
    T* to = owner_->template mutable_data_ptr<T>();
    data_ = to;
    const T* from = map.template const_data_ptr<T>();
    const int64_t width = p.out_width() / repeats;
    const MapStrides at(p.channels, height_ * width, last);
    torch::stable::parallel_for(0, p.batch * height_, grain_for(p.channels * row), [&](int64_t begin, int64_t end) {
      vectorized([&] {
        for (int64_t line = begin; line < end; ++line) {
          const T* source = from + line / height_ * at.image + line % height_ * width * at.pixel;
          for (int64_t c = 0; c < p.channels; ++c) {
            T* target = to + (line * p.channels + c) * row;
            std::fill_n(target, margin, T(0));
            copy(source + c * at.channel, at.pixel, width, repeats, target + margin);
            std::fill_n(target + used, row - used, T(0));
          }
        }
      });
    });
  }

  CV_HD const T* at(int64_t image, int64_t y, int64_t c) const {
    return data_ + ((image * height_ + y) * channels_ + c) * row;
  }

  int64_t margin, row;

 private:
  CV_HD static void copy(const T* CV_RESTRICT from, int64_t stride, int64_t width, int64_t repeats, T* CV_RESTRICT to) {
    if (repeats == 1 && stride == 1) {
      for (int64_t x = 0; x < width; ++x) to[x] = from[x];
    } else if (repeats == 2) {
      for (int64_t x = 0; x < width; ++x) to[2 * x] = to[2 * x + 1] = from[x * stride];
    } else {
      for (int64_t x = 0; x < width; ++x)
        for (int64_t k = 0; k < repeats; ++k) to[x * repeats + k] = from[x * stride];
    }
  }

  int64_t channels_, height_;
  std::optional<Tensor> owner_;
  const T* data_;
};

// The terms of a block of outputs of one row: term t adds weights[t][j] rows[t][j] of each channel.
template <typename T>
struct Terms {
  int64_t width;  // of a block: whole vectors, and whole pixels of the features
  std::vector<const T*> rows;
  std::vector<T> weights;
  int64_t count = 0;

  Terms(int64_t most, const Params& p) {
    const int64_t unit = std::lcm(Vec<T>::size, p.scale), bytes = most * unit * static_cast<int64_t>(sizeof(T));
    const int64_t units = std::clamp<int64_t>(16384 / bytes, 1, 8);  // weights within half of the first-level cache
    width = unit * std::min(units, (p.out_width() + unit - 1) / unit);
    rows.resize(most);
    weights.resize(most * width);
  }

  // Weights: those of [begin, end) from `mask`, 0 for the rest of the block.
  CV_HD void add(const T* row, const T* mask, int64_t begin, int64_t end) {
    T* to = weights.data() + count * width;
    begin = std::max<int64_t>(0, begin), end = std::min(end, width);
    if (begin >= end) return;
    for (int64_t j = 0; j < begin; ++j) to[j] = T(0);
    for (int64_t j = begin; j < end; ++j) to[j] = mask[j];
    for (int64_t j = end; j < width; ++j) to[j] = T(0);
    rows[count++] = row;
  }
};

// out[k][j] = sum of the terms of channel c + k
template <int kCount, typename T>
CV_HD void sum_terms(const Terms<T>& terms, int64_t offset, int64_t row, int64_t vectors, T* out) {
  using V = Vec<T>;
  const T* const* rows = terms.rows.data();
  for (int64_t j = 0; j < vectors * V::size; j += V::size) {
    const T* weights = terms.weights.data() + j;
    V s[kCount];
    for (int k = 0; k < kCount; ++k) s[k] = V::zero();
    for (int64_t t = 0; t < terms.count; ++t) {
      const V w = V::load(weights + t * terms.width);
      const T* from = rows[t] + offset + j;
      for (int k = 0; k < kCount; ++k) s[k] += w * V::load(from + k * row);
    }
    for (int k = 0; k < kCount; ++k) s[k].store(out + k * terms.width + j);
  }
}

// store(channel, sums) for each of n channels, which are `row` apart
template <typename T, typename F>
CV_HD void for_each_channel(const Terms<T>& terms, int64_t n, int64_t row, int64_t count, T* sums, F&& store) {
  const int64_t vectors = (count + Vec<T>::size - 1) / Vec<T>::size;
  int64_t c = 0;
  const auto take = [&](auto times) {
    constexpr int k = decltype(times)::value;
    for (; c + k <= n; c += k) {
      sum_terms<k>(terms, c * row, row, vectors, sums);
      for (int i = 0; i < k; ++i) store(c + i, sums + i * terms.width);
    }
  };
  take(std::integral_constant<int, 8>{});
  take(std::integral_constant<int, 4>{});
  take(std::integral_constant<int, 1>{});
}

template <typename T>
CV_HD void copy_strided(T* CV_RESTRICT to, int64_t stride, const T* CV_RESTRICT from, int64_t n) {
  if (stride == 1)
    for (int64_t j = 0; j < n; ++j) to[j] = from[j];
  else
    for (int64_t j = 0; j < n; ++j) to[j * stride] = from[j];
}

// to[x] = the sum of `scale` neighbours; count: of results
template <typename T>
CV_HD void fold(T* CV_RESTRICT to, int64_t stride, const T* CV_RESTRICT from, int64_t count, int64_t scale) {
  if (scale == 1) return copy_strided(to, stride, from, count);
  if (scale == 2) {
    for (int64_t x = 0; x < count; ++x) to[x * stride] = from[2 * x] + from[2 * x + 1];
    return;
  }
  for (int64_t x = 0; x < count; ++x) {
    T sum = T(0);
    for (int64_t k = 0; k < scale; ++k) sum += from[x * scale + k];
    to[x * stride] = sum;
  }
}

template <typename T>
class Planes {
 public:
  Planes(const Params& p, const T* masks, bool last) : p_(p), masks_(masks), last_(last) {}

  void forward(const Rows<T>& features, T* out) const {
    const MapStrides to(p_.channels, p_.out_plane(), last_);
    for_each_line(p_.out_height(), p_.taps(), p_.taps(), [&](int64_t image, int64_t i, Terms<T>& terms, T* sums) {
      T* line = out + image * to.image + i * p_.out_width() * to.pixel;
      for_each_block(terms, [&](int64_t group, int64_t first, int64_t count) {
        gather_forward(features, image, group, i, first, terms);
        for_each_channel(terms, p_.group_channels(), features.row, count, sums, [&](int64_t c, const T* from) {
          copy_strided(line + (group * p_.group_channels() + c) * to.channel + first * to.pixel, to.pixel, from, count);
        });
      });
    });
  }

  void backward_features(const Rows<T>& grad, T* out) const {
    const MapStrides to(p_.channels, p_.plane(), last_);
    const int64_t terms = p_.taps() * p_.scale;
    for_each_line(p_.height, terms, terms, [&](int64_t image, int64_t y, Terms<T>& terms, T* sums) {
      T* line = out + image * to.image + y * p_.width * to.pixel;
      for_each_block(terms, [&](int64_t group, int64_t first, int64_t count) {
        gather_backward(grad, image, group, y, first, terms);
        for_each_channel(terms, p_.group_channels(), grad.row, count, sums, [&](int64_t c, const T* from) {
          fold(line + (group * p_.group_channels() + c) * to.channel + first / p_.scale * to.pixel, to.pixel, from,
               count / p_.scale, p_.scale);
        });
      });
    });
  }

  void backward_masks(const Rows<T>& features, const Rows<T>& grad, T* out) const {
    for_each_line(p_.out_height(), p_.taps(), 1, [&](int64_t image, int64_t i, Terms<T>&, T*) {
      for (int64_t group = 0; group < p_.groups; ++group)
        for (int64_t ky = 0; ky < p_.kernel; ++ky) {
          const int64_t y = i / p_.scale + ky - p_.kernel / 2;
          T* to = out + p_.mask_index(image, group, ky * p_.kernel, i * p_.out_width());
          if (y < 0 || y >= p_.height) {
            for (int64_t kx = 0; kx < p_.kernel; ++kx) std::fill_n(to + kx * p_.out_plane(), p_.out_width(), T(0));
            continue;
          }
          const T *x = features.at(image, y, group * p_.group_channels()),
                  *g = grad.at(image, i, group * p_.group_channels()) + grad.margin;
          int64_t kx = 0;
          for (; kx + 5 <= p_.kernel; kx += 5) mask_dots<5>(x, g, features.row, kx, to);
          for (; kx + 3 <= p_.kernel; kx += 3) mask_dots<3>(x, g, features.row, kx, to);
          for (; kx < p_.kernel; ++kx) mask_dots<1>(x, g, features.row, kx, to);
        }
    });
  }

 private:
  // f(image, line, terms, sums), in parallel; `per_output`: terms of an output
  template <typename F>
  void for_each_line(int64_t lines, int64_t per_output, int64_t most_terms, F&& f) const {
    const int64_t operations = per_output * p_.out_width() * p_.channels / Vec<T>::size + p_.channels;
    torch::stable::parallel_for(0, p_.batch * lines, grain_for(operations), [&](int64_t begin, int64_t end) {
      Terms<T> terms(most_terms, p_);
      std::vector<T> sums(8 * terms.width);
      vectorized([&] {
        for (int64_t line = begin; line < end; ++line) f(line / lines, line % lines, terms, sums.data());
      });
    });
  }

  // f(group, first, count) for blocks [first, first + count) of the columns of the output
  template <typename F>
  CV_HD void for_each_block(const Terms<T>& terms, F&& f) const {
    for (int64_t group = 0; group < p_.groups; ++group)
      for (int64_t first = 0; first < p_.out_width(); first += terms.width)
        f(group, first, std::min(terms.width, p_.out_width() - first));
  }

  // The columns, counted from `first`, whose neighbour `shift` further is inside.
  CV_HD int64_t begin_inside(int64_t first, int64_t shift) const { return std::max<int64_t>(0, -shift) - first; }
  CV_HD int64_t end_inside(int64_t first, int64_t shift) const {
    return std::min(p_.out_width(), p_.out_width() - shift) - first;
  }

  CV_HD void gather_forward(const Rows<T>& features, int64_t image, int64_t group, int64_t i, int64_t first,
                            Terms<T>& terms) const {
    terms.count = 0;
    for (int64_t tap = 0; tap < p_.taps(); ++tap) {
      const int64_t y = i / p_.scale + tap / p_.kernel - p_.kernel / 2, shift = shift_of(tap % p_.kernel);
      if (y < 0 || y >= p_.height) continue;
      terms.add(features.at(image, y, group * p_.group_channels()) + features.margin + first + shift,
                masks_ + p_.mask_index(image, group, tap, i * p_.out_width() + first), begin_inside(first, shift),
                end_inside(first, shift));
    }
  }

  // Terms of the pixels of row y, enlarged: output j of tap kx belongs to the place j + shift.
  CV_HD void gather_backward(const Rows<T>& grad, int64_t image, int64_t group, int64_t y, int64_t first,
                             Terms<T>& terms) const {
    terms.count = 0;
    for (int64_t tap = 0; tap < p_.taps(); ++tap) {
      const int64_t from = y - tap / p_.kernel + p_.kernel / 2, shift = -shift_of(tap % p_.kernel);
      if (from < 0 || from >= p_.height) continue;
      for (int64_t i = from * p_.scale; i < (from + 1) * p_.scale; ++i)
        terms.add(grad.at(image, i, group * p_.group_channels()) + grad.margin + first + shift,
                  masks_ + p_.mask_index(image, group, tap, i * p_.out_width() + first + shift),
                  begin_inside(first, shift), end_inside(first, shift));
    }
  }

  CV_HD int64_t shift_of(int64_t kx) const { return (kx - p_.kernel / 2) * p_.scale; }

  // Gradients of the masks of kCount taps of a row of outputs.
  template <int kCount>
  CV_HD void mask_dots(const T* features, const T* grad, int64_t row, int64_t kx, T* out) const {
    using V = Vec<T>;
    for (int64_t j = 0; j < p_.out_width(); j += V::size) {
      V s[kCount];
      for (int k = 0; k < kCount; ++k) s[k] = V::zero();
      for (int64_t c = 0; c < p_.group_channels(); ++c) {
        const V g = V::load(grad + c * row + j);
        const T* from = features + c * row + kx * p_.scale + j;
        for (int k = 0; k < kCount; ++k) s[k] += g * V::load(from + k * p_.scale);
      }
      const int64_t n = std::min<int64_t>(V::size, p_.out_width() - j);
      for (int k = 0; k < kCount; ++k) {
        T* to = out + (kx + k) * p_.out_plane() + j;
        const int64_t shift = shift_of(kx + k), begin = begin_inside(j, shift), end = end_inside(j, shift);
        if (begin <= 0 && end >= V::size) {
          s[k].store(to);
          continue;
        }
        T values[V::size];
        s[k].store(values);
        for (int64_t i = 0; i < n; ++i) to[i] = i >= begin && i < end ? values[i] : T(0);
      }
    }
  }

  Params p_;
  const T* masks_;
  bool last_;
};

// Whether that is less work than runs of channels, counted for a group and a row of the output in operations on vectors
// (measured: those here cost more, for they read across cache lines; a run's remainder and its start cost several).
template <typename T>
bool takes_planes(const Params& p, bool last) {
  if (p.taps() * p.scale > 4096) return false;  // scratch memory
  constexpr double lanes = Vec<T>::size;
  const double n = p.group_channels(), taps = p.taps(), outputs = p.out_width();
  const double vectors = std::ceil(outputs / lanes), whole = std::floor(n / lanes), rest = n - whole * lanes;
  const double runs = outputs * (taps * (whole + 2.5 * rest + 5) + (last ? 0 : 2.5 * n));
  const double planes = taps * (1.6 * vectors * n + 0.5 * vectors * lanes + 15) + n * (2 * vectors + 8) +
                        (last ? 1.5 * n * outputs : 0);
  return planes < runs;
}

}  // namespace cv::carafe
