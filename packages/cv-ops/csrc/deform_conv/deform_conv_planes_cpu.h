#pragma once
// Deformable convolution on the CPU with vectors along output pixels, for few channels in a deformable group: what a
// place costs, which all channels of its group share, is then most of the work. Planes of the input are copied with a
// border of zeros, so that places need no branches; columns of a block of pixels stay in the cache and are multiplied
// by the weight right away.

#include <algorithm>
#include <iterator>
#include <vector>

#include "../common/isa.h"
#include "../common/parallel.h"
#include "../common/vec.h"
#include "deform_conv_columns.h"

namespace cv::deform_conv {

// Decided by what it costs: a place saves some 30 operations here, the product (for which MKL is not asked) takes up
// to twice as long.
template <typename T>
bool takes_planes(const Geometry& g) {
  const int64_t most = int64_t{1} << 28;  // places are 32-bit numbers
  const int64_t sizes[] = {g.height, g.width, g.pad_h, g.pad_w, g.kernel_h * g.dilation_h, g.kernel_w * g.dilation_w};
  const bool fits = *std::max_element(std::begin(sizes), std::end(sizes)) < most &&
                    (g.height + 3) * (g.width + 2) < most;
  return fits && g.deform_channels() < Vec<T>::size && g.group_out_channels() * g.deform_channels() <= 1200;
}

// Places of one tap for a block of pixels: index of the upper left neighbour in a plane with its border, the position
// between the four, and the mask (0 outside).
template <typename T>
struct Places {
  static constexpr int64_t size = 64;
  int32_t row[size], column[size];  // of the pixels, at tap (0, 0)
  int32_t index[size];
  T ly[size], lx[size], mask[size];
};

// As locate() has it, without branches.
template <typename T>
CV_HD void find_places(Places<T>& p, int64_t n, const T* CV_RESTRICT offset_y, const T* CV_RESTRICT offset_x,
                       const T* CV_RESTRICT mask, int32_t down, int32_t right, int32_t height, int32_t width) {
  const T far = T(1 << 30);
  const int32_t outside = (height + 1) * (width + 2);
  for (int64_t i = 0; i < n; ++i) {
    T y = offset_y[i], x = offset_x[i];
    const bool near = (y > -far) & (y < far) & (x > -far) & (x < far);
    y = near ? y : T(0), x = near ? x : T(0);
    int32_t fy = static_cast<int32_t>(y), fx = static_cast<int32_t>(x);
    fy -= T(fy) > y, fx -= T(fx) > x;  // floor
    const T ly = y - T(fy), lx = x - T(fx);
    const int32_t y0 = p.row[i] + down + fy, x0 = p.column[i] + right + fx;
    const bool inside = near & (y0 >= -1) & (y0 < height) & (x0 >= -1) & (x0 < width) & ((y0 >= 0) | (ly > T(0))) &
                        ((x0 >= 0) | (lx > T(0)));
    p.index[i] = inside ? (y0 + 1) * (width + 2) + x0 + 1 : outside;
    p.ly[i] = ly, p.lx[i] = lx;
    p.mask[i] = inside ? mask[i] : T(0);
  }
}

// out[i] = mask * bilinear(plane, place i)
template <typename T>
CV_HD void read_places(const Places<T>& p, int64_t n, const T* CV_RESTRICT plane, int64_t row, T* CV_RESTRICT out) {
  for (int64_t i = 0; i < n; ++i) {
    const T *upper = plane + p.index[i], *lower = upper + row;
    const T ly = p.ly[i], lx = p.lx[i];
    const T top = (T(1) - lx) * upper[0] + lx * upper[1], bottom = (T(1) - lx) * lower[0] + lx * lower[1];
    out[i] = p.mask[i] * ((T(1) - ly) * top + ly * bottom);
  }
}

template <typename T>
class PlanesForward {
  using V = Vec<T>;

 public:
  // x: (N, C, H, W) in either layout; weight: contiguous; mask: null for ones.
  PlanesForward(const Geometry& g, const Tensor& x, const T* offset, const T* mask, const T* weight)
      : g_(g), offset_(offset), mask_(mask), weight_(weight), row_(g.width + 2), plane_((g.height + 3) * row_),
        planes_(empty_beside(x, {g.batch * g.channels * plane_}, x.scalar_type())) {
    const T* from = x.const_data_ptr<T>();
    T* to = planes_.template mutable_data_ptr<T>();
    const bool last = is_channels_last(x);
    const int64_t size = g.height * g.width, step = last ? g.channels : 1;
    torch::stable::parallel_for(0, g.batch * g.channels, grain_for(plane_), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T* source = from + (last ? i / g.channels * g.channels * size + i % g.channels : i * size);
        add_border(source, step, to + i * plane_);
      }
    });
  }

  // out (N, Cout, out_h, out_w), stored channels last if nhwc; without the bias.
  void forward(T* out, bool nhwc) const {
    const int64_t size = Places<T>::size, blocks = (g_.out_plane() + size - 1) / size;
    const int64_t operations = size * (g_.taps() * (g_.deform_groups + g_.channels) +
                                       g_.out_channels * g_.group_columns() / V::size);
    torch::stable::parallel_for(0, g_.batch * blocks, grain_for(operations), [&](int64_t begin, int64_t end) {
      std::vector<T> columns(g_.channels * g_.taps() * size), ones(mask_ ? 0 : size, T(1));
      vectorized([&] {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t image = task / blocks, first = task % blocks * size, n = std::min(size, g_.out_plane() - first);
          sample(image, first, n, ones.data(), columns.data());
          multiply(image, first, n, columns.data(), out, nhwc);
        }
      });
    });
  }

 private:
  CV_HD void add_border(const T* CV_RESTRICT from, int64_t step, T* CV_RESTRICT to) const {
    std::fill_n(to, row_, T(0));
    for (int64_t y = 0; y < g_.height; ++y) {
      T* line = to + (y + 1) * row_;
      const T* source = from + y * g_.width * step;
      line[0] = line[g_.width + 1] = T(0);
      for (int64_t x = 0; x < g_.width; ++x) line[x + 1] = source[x * step];
    }
    std::fill_n(to + (g_.height + 1) * row_, 2 * row_, T(0));
  }

  // columns (C, taps, size) of n output pixels from `first` on
  CV_HD void sample(int64_t image, int64_t first, int64_t n, const T* ones, T* columns) const {
    constexpr int64_t size = Places<T>::size;
    Places<T> places;
    int64_t y = first / g_.out_w, x = first % g_.out_w;
    for (int64_t i = 0; i < n; ++i, ++x) {
      if (x == g_.out_w) x = 0, ++y;
      places.row[i] = static_cast<int32_t>(y * g_.stride_h - g_.pad_h);
      places.column[i] = static_cast<int32_t>(x * g_.stride_w - g_.pad_w);
    }
    const int64_t filled = (n + V::size - 1) / V::size * V::size, channels = g_.deform_channels();
    for (int64_t dg = 0; dg < g_.deform_groups; ++dg)
      for (int64_t tap = 0; tap < g_.taps(); ++tap) {
        const T* offset = offset_ + g_.offset_index(image, dg, tap, first);
        find_places(places, n, offset, offset + g_.out_plane(),
                    mask_ ? mask_ + g_.mask_index(image, dg, tap, first) : ones,
                    static_cast<int32_t>(tap / g_.kernel_w * g_.dilation_h),
                    static_cast<int32_t>(tap % g_.kernel_w * g_.dilation_w), static_cast<int32_t>(g_.height),
                    static_cast<int32_t>(g_.width));
        for (int64_t c = dg * channels; c < (dg + 1) * channels; ++c) {
          T* to = columns + (c * g_.taps() + tap) * size;
          read_places(places, n, planes_.template const_data_ptr<T>() + (image * g_.channels + c) * plane_, row_, to);
          for (int64_t i = n; i < filled; ++i) to[i] = T(0);
        }
      }
  }

  CV_HD void multiply(int64_t image, int64_t first, int64_t n, const T* columns, T* out, bool nhwc) const {
    const int64_t rows = g_.group_out_channels(), inner = g_.group_columns();
    for (int64_t group = 0; group < g_.groups; ++group) {
      const T* from = columns + group * inner * Places<T>::size;
      const auto times = [&](auto count, int64_t& r) {
        constexpr int k = decltype(count)::value;
        for (; r + k <= rows; r += k)
          for (int64_t i = 0; i < n; i += 2 * V::size) {
            const int64_t c = group * rows + r, pixel = first + i;
            T tile[k][2 * V::size];
            product<k>(weight_ + c * inner, inner, from + i, tile);
            const int64_t m = std::min(2 * V::size, n - i);
            T* to = out + (nhwc ? (image * g_.out_plane() + pixel) * g_.out_channels + c
                                : (image * g_.out_channels + c) * g_.out_plane() + pixel);
            for (int row = 0; row < k; ++row)
              if (nhwc)
                for (int64_t j = 0; j < m; ++j) to[j * g_.out_channels + row] = tile[row][j];
              else
                for (int64_t j = 0; j < m; ++j) to[row * g_.out_plane() + j] = tile[row][j];
          }
      };
      int64_t r = 0;
      times(std::integral_constant<int, 4>{}, r);
      times(std::integral_constant<int, 1>{}, r);
    }
  }

  // tile = kRows rows of the weight times two vectors of pixels
  template <int kRows>
  CV_HD void product(const T* weight, int64_t inner, const T* columns, T tile[kRows][2 * V::size]) const {
    V s[kRows][2];
    for (int r = 0; r < kRows; ++r) s[r][0] = s[r][1] = V::zero();
    for (int64_t k = 0; k < inner; ++k) {
      const V a = V::load(columns + k * Places<T>::size), b = V::load(columns + k * Places<T>::size + V::size);
      for (int r = 0; r < kRows; ++r) {
        const T w = weight[r * inner + k];
        s[r][0] += w * a;
        s[r][1] += w * b;
      }
    }
    for (int r = 0; r < kRows; ++r) {
      s[r][0].store(tile[r]);
      s[r][1].store(tile[r] + V::size);
    }
  }

  const Geometry& g_;
  const T *offset_, *mask_, *weight_;
  int64_t row_, plane_;
  Tensor planes_;
};

}  // namespace cv::deform_conv
