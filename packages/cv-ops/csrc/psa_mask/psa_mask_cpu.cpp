// psa_mask on the CPU, and its schema.
//
// Matrix by matrix (see the header): each is small enough for the cache, so that its diagonals may be read in any
// order, and every line of memory is read and written once.

#include <algorithm>

#include "../common/parallel.h"
#include "psa_mask_args.h"

namespace cv::psa_mask {
namespace {

// Elements that one loop goes through: x and w grow together or one alone.
template <typename T>
inline void copy_strided(const T* CV_RESTRICT from, int64_t from_step, T* CV_RESTRICT to, int64_t to_step, int64_t n) {
  for (int64_t k = 0; k < n; ++k) to[k * to_step] = from[k * from_step];
}

// pairs (x, w) from masks (j, w), j = x - w + half_w. The inner loop runs along the neighbours in the output.
template <typename T>
inline void masks_to_pairs(const Geometry& g, const T* masks, T* pairs) {
  const int64_t row = g.masks_row(), half = g.half_w();
  for (int64_t outer = 0; outer < g.w; ++outer) {
    // collect: outer is x and w runs, j falling; distribute: outer is w and x runs, j growing
    T* out = pairs + outer * (g.distribute ? g.pairs_w() : g.pairs_x());
    const int64_t least = g.distribute ? outer - half : outer + half - (g.mask_w - 1);
    const int64_t begin = std::clamp<int64_t>(least, 0, g.w), end = std::clamp<int64_t>(least + g.mask_w, begin, g.w);
    std::fill(out, out + begin, T(0));
    if (g.distribute) {
      copy_strided(masks + (begin - outer + half) * row + outer, row, out + begin, 1, end - begin);
    } else {
      copy_strided(masks + (outer - begin + half) * row + begin, 1 - row, out + begin, 1, end - begin);
    }
    std::fill(out + end, out + g.w, T(0));
  }
}

// The reverse: masks (j, w) from pairs, 0 where the mask reaches out of the map.
template <typename T>
inline void pairs_to_masks(const Geometry& g, const T* pairs, T* masks) {
  const int64_t half = g.half_w();
  for (int64_t j = 0; j < g.mask_w; ++j) {
    T* out = masks + j * g.masks_row();
    const int64_t shift = j - half;  // x = w + shift
    const int64_t begin = std::clamp<int64_t>(-shift, 0, g.w), end = std::clamp<int64_t>(g.w - shift, begin, g.w);
    std::fill(out, out + begin, T(0));
    copy_strided(pairs + (begin + shift) * g.pairs_x() + begin * g.pairs_w(), g.pairs_x() + g.pairs_w(), out + begin, 1,
                 end - begin);
    std::fill(out + end, out + g.w, T(0));
  }
}

template <typename T>
inline void zero_pairs(const Geometry& g, T* pairs) {
  const int64_t step = g.distribute ? g.pairs_w() : g.pairs_x();
  for (int64_t k = 0; k < g.w; ++k) std::fill(pairs + k * step, pairs + k * step + g.w, T(0));
}
template <typename T>
inline void zero_masks(const Geometry& g, T* masks) {
  for (int64_t j = 0; j < g.mask_w; ++j) std::fill(masks + j * g.masks_row(), masks + j * g.masks_row() + g.w, T(0));
}

// A task has one row of the output's channels, so that neighbouring rows of pixels, which share lines of memory,
// are written by one thread.
template <typename T>
void forward(const Geometry& g, const T* masks, T* pairs) {
  torch::stable::parallel_for(0, g.n * g.h, grain_for(g.h * g.w * g.w), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / g.h, channel_row = task % g.h;
      for (int64_t pixel_row = 0; pixel_row < g.h; ++pixel_row) {
        const int64_t h = g.distribute ? channel_row : pixel_row, y = g.distribute ? pixel_row : channel_row;
        const int64_t i = y - h + g.half_h();
        T* out = pairs + g.pairs_at(n, h, y);
        if (i < 0 || i >= g.mask_h) {
          zero_pairs(g, out);
        } else {
          masks_to_pairs(g, masks + g.masks_at(n, h, i), out);
        }
      }
    }
  });
}

template <typename T>
void backward(const Geometry& g, const T* pairs, T* masks) {
  torch::stable::parallel_for(0, g.n * g.mask_h, grain_for(g.h * g.w * g.mask_w), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / g.mask_h, i = task % g.mask_h;
      for (int64_t h = 0; h < g.h; ++h) {
        const int64_t y = h + i - g.half_h();
        T* out = masks + g.masks_at(n, h, i);
        if (y < 0 || y >= g.h) {
          zero_masks(g, out);
        } else {
          pairs_to_masks(g, pairs + g.pairs_at(n, h, y), out);
        }
      }
    }
  });
}

Tensor forward_cpu(const Tensor& input, int64_t mask_h, int64_t mask_w, bool distribute) {
  const Geometry g = geometry_of(input, mask_h, mask_w, distribute);
  const Tensor x = as_contiguous(input), out = empty_pairs(x, g);
  if (out.numel() == 0) return out;
  dispatch_element_size(x, "psa_mask", [&](auto type) {
    using T = typename decltype(type)::type;
    forward(g, static_cast<const T*>(x.const_data_ptr()), static_cast<T*>(out.mutable_data_ptr()));
  });
  return out;
}

Tensor backward_cpu(const Tensor& grad, int64_t mask_h, int64_t mask_w, bool distribute) {
  const Geometry g = geometry_of_grad(grad, mask_h, mask_w, distribute);
  const Tensor x = as_contiguous(grad), out = empty_masks(x, g);
  if (out.numel() == 0) return out;
  dispatch_element_size(x, "psa_mask_backward", [&](auto type) {
    using T = typename decltype(type)::type;
    backward(g, static_cast<const T*>(x.const_data_ptr()), static_cast<T*>(out.mutable_data_ptr()));
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("psa_mask(Tensor input, int mask_h, int mask_w, bool distribute) -> Tensor");
  m.def("psa_mask_backward(Tensor grad, int mask_h, int mask_w, bool distribute) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("psa_mask", CV_BOX(&forward_cpu));
  m.impl("psa_mask_backward", CV_BOX(&backward_cpu));
}

}  // namespace cv::psa_mask
