// CARAFE on the CPU. Maps are read (N, H, W, C), so that a pixel is a run of channels: forward and the gradient of
// the features are weighted sums of such runs, the gradient of the masks is their dot products. Half types are
// computed in float32. Rows of pixels are in parallel; each result belongs to one task, so all is deterministic.
// Where vectors along the rows of the output are less work, carafe_planes_cpu.h does it.

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/dispatch.h"
#include "../common/isa.h"
#include "../common/memory_format.h"
#include "../common/parallel.h"
#include "../common/transpose.h"
#include "../common/vec.h"
#include "carafe_args.h"
#include "carafe_planes_cpu.h"

namespace cv::carafe {
namespace {

using torch::stable::parallel_for;

template <typename T>
struct Problem {
  Params p;
  const T *features, *masks;  // (N, H, W, C); see Params::mask_index
};

// Scratch memory of one task: runs of channels, their weights or dot products.
template <typename T>
struct Window {
  std::vector<const T*> rows;
  std::vector<T> values;

  explicit Window(int64_t size) : rows(size), values(size) {}
};

template <typename T>
CV_HD void forward_row(const Problem<T>& problem, int64_t image, int64_t i, Window<T>& window, T* out) {
  const Params& p = problem.p;
  const int64_t n = p.group_channels(), radius = p.kernel / 2;
  const T* map = problem.features + image * p.plane() * p.channels;
  for (int64_t j = 0; j < p.out_width(); ++j) {
    const int64_t pixel = i * p.out_width() + j, top = i / p.scale - radius, left = j / p.scale - radius;
    for (int64_t g = 0; g < p.groups; ++g) {
      const T* mask = problem.masks + p.mask_index(image, g, 0, pixel);
      int64_t count = 0;
      for (int64_t y = std::max<int64_t>(0, -top); y < std::min(p.kernel, p.height - top); ++y)
        for (int64_t x = std::max<int64_t>(0, -left); x < std::min(p.kernel, p.width - left); ++x, ++count) {
          window.rows[count] = map + ((top + y) * p.width + left + x) * p.channels + g * n;
          window.values[count] = mask[(y * p.kernel + x) * p.out_plane()];
        }
      weighted_sum(out + j * p.channels + g * n, window.rows.data(), window.values.data(), count, n);
    }
  }
}

// Row `row` of grad_features (N, H, W, C) from grad (N, sH, sW, C)
template <typename T>
CV_HD void features_row(const Problem<T>& problem, int64_t image, int64_t row, Window<T>& window, const T* grad,
                        T* grad_features) {
  const Params& p = problem.p;
  const int64_t n = p.group_channels(), radius = p.kernel / 2;
  const T* map = grad + image * p.out_plane() * p.channels;
  for (int64_t column = 0; column < p.width; ++column)
    for (int64_t g = 0; g < p.groups; ++g) {
      const T* masks = problem.masks + p.mask_index(image, g, 0, 0);
      int64_t count = 0;
      for (int64_t tap = 0; tap < p.taps(); ++tap) {
        const int64_t y = row - tap / p.kernel + radius, x = column - tap % p.kernel + radius;
        if (!p.inside(y, x)) continue;
        for (int64_t i = y * p.scale; i < (y + 1) * p.scale; ++i)
          for (int64_t j = x * p.scale; j < (x + 1) * p.scale; ++j, ++count) {
            const int64_t pixel = i * p.out_width() + j;
            window.rows[count] = map + pixel * p.channels + g * n;
            window.values[count] = masks[tap * p.out_plane() + pixel];
          }
      }
      weighted_sum(grad_features + column * p.channels + g * n, window.rows.data(), window.values.data(), count, n);
    }
}

// Row i of grad_masks. Windows of neighbouring outputs are the same, so their pixels stay in the cache.
template <typename T>
CV_HD void masks_row(const Problem<T>& problem, int64_t image, int64_t i, Window<T>& window, const T* zeros,
                     const T* grad, T* grad_masks) {
  const Params& p = problem.p;
  const int64_t n = p.group_channels(), radius = p.kernel / 2, taps = p.taps();
  const T* map = problem.features + image * p.plane() * p.channels;
  for (int64_t j = 0; j < p.out_width(); ++j) {
    const int64_t pixel = i * p.out_width() + j, top = i / p.scale - radius, left = j / p.scale - radius;
    for (int64_t g = 0; g < p.groups; ++g) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t y = top + tap / p.kernel, x = left + tap % p.kernel;
        window.rows[tap] = p.inside(y, x) ? map + (y * p.width + x) * p.channels + g * n : zeros;
      }
      const T* from = grad + (image * p.out_plane() + pixel) * p.channels + g * n;
      for (int64_t tap = 0; tap < taps; tap += 4) {  // window has room for three more
        for (int64_t k = taps; k < tap + 4; ++k) window.rows[k] = zeros;
        T d[4] = {T(0), T(0), T(0), T(0)};
        dot_rows(d, from, window.rows.data() + tap, n);
        for (int64_t k = tap; k < std::min(tap + 4, taps); ++k)
          grad_masks[p.mask_index(image, g, k, pixel)] = d[k - tap];
      }
    }
  }
}

template <typename T>
void forward(const Problem<T>& problem, T* out) {
  const Params& p = problem.p;
  const int64_t per_pixel = p.channels * p.taps();
  parallel_for(0, p.batch * p.out_height(), grain_for(p.out_width() * per_pixel), [&](int64_t begin, int64_t end) {
    Window<T> window(p.taps());
    vectorized([&] {
      for (int64_t row = begin; row < end; ++row)
        forward_row(problem, row / p.out_height(), row % p.out_height(), window, out + row * p.out_width() * p.channels);
    });
  });
}

template <typename T>
void backward_features(const Problem<T>& problem, const T* grad, T* grad_features) {
  const Params& p = problem.p;
  const int64_t per_pixel = p.channels * p.taps();
  parallel_for(0, p.batch * p.height, grain_for(p.scale * p.out_width() * per_pixel), [&](int64_t begin, int64_t end) {
    Window<T> window(p.taps() * p.scale * p.scale);
    vectorized([&] {
      for (int64_t row = begin; row < end; ++row)
        features_row(problem, row / p.height, row % p.height, window, grad, grad_features + row * p.width * p.channels);
    });
  });
}

template <typename T>
void backward_masks(const Problem<T>& problem, const T* zeros, const T* grad, T* grad_masks) {
  const Params& p = problem.p;
  const int64_t per_pixel = p.channels * p.taps();
  parallel_for(0, p.batch * p.out_height(), grain_for(p.out_width() * per_pixel), [&](int64_t begin, int64_t end) {
    Window<T> window(p.taps() + 3);
    vectorized([&] {
      for (int64_t row = begin; row < end; ++row)
        masks_row(problem, row / p.out_height(), row % p.out_height(), window, zeros, grad, grad_masks);
    });
  });
}

Tensor carafe_cpu(const Tensor& features, const Tensor& masks, int64_t kernel, int64_t groups, int64_t scale) {
  const Params p = make_params(features, masks, kernel, groups, scale);
  const ScalarType dtype = features.scalar_type(), acc = opmath_dtype(dtype);
  const bool last = is_channels_last(features);
  const auto empty = [&](bool nhwc) {
    return empty_4d(features, p.batch, p.channels, p.out_height(), p.out_width(), acc, nhwc);
  };
  if (p.batch * p.channels * p.out_plane() == 0) return to_dtype(empty(last), dtype);
  const Tensor m = as_contiguous(to_opmath(masks));
  std::optional<Tensor> out;
  dispatch_float_double(acc, "carafe", [&](auto t) {
    using T = typename decltype(t)::type;
    if (takes_planes<T>(p, last)) {
      const Tensor x = last ? to_opmath(features) : as_contiguous(to_opmath(features));
      out = empty(last);
      Planes<T>(p, m.const_data_ptr<T>(), last).forward(Rows<T>(x, p, scale, last), out->mutable_data_ptr<T>());
    } else {
      const Tensor x = channels_last(to_opmath(features));
      out = empty(true);
      forward(Problem<T>{p, x.const_data_ptr<T>(), m.const_data_ptr<T>()}, out->mutable_data_ptr<T>());
      out = last ? *out : channels_first_cpu<T>(*out);
    }
  });
  return to_dtype(*out, dtype);
}

// (grad_features, grad_masks); those not wanted have no elements.
std::tuple<Tensor, Tensor> carafe_backward_cpu(const Tensor& grad, const Tensor& features, const Tensor& masks,
                                               int64_t kernel, int64_t groups, int64_t scale, bool want_features,
                                               bool want_masks) {
  const Params p = make_params(features, masks, kernel, groups, scale);
  check_grad(grad, features, p);
  const ScalarType dtype = features.scalar_type(), acc = opmath_dtype(dtype);
  const bool last = is_channels_last(features);
  Tensor grad_features = empty_beside(features, {0}, acc);
  Tensor grad_masks = grad.numel() == 0 && want_masks ? Tensor(torch::stable::new_zeros(masks, masks.sizes(), acc))
                                                      : empty_beside(masks, {0}, acc);
  const auto want = [&](bool nhwc) {
    if (want_features) grad_features = empty_4d(features, p.batch, p.channels, p.height, p.width, acc, nhwc);
    if (want_masks) grad_masks = empty_4d(masks, p.batch, masks.size(1), p.out_height(), p.out_width(), acc, false);
  };
  dispatch_float_double(acc, "carafe_backward", [&](auto t) {
    using T = typename decltype(t)::type;
    if (grad.numel() == 0) {
      if (want_features) grad_features = empty_4d(features, p.batch, p.channels, p.height, p.width, acc, last);
      return;
    }
    const Tensor m = as_contiguous(to_opmath(masks));
    if (takes_planes<T>(p, last)) {
      want(last);
      const auto in_layout = [&](const Tensor& map) {
        return last ? channels_last(to_opmath(map)) : as_contiguous(to_opmath(map));
      };
      const Planes<T> planes(p, m.const_data_ptr<T>(), last);
      const Rows<T> g(in_layout(grad), p, 1, last);
      if (want_features) planes.backward_features(g, grad_features.mutable_data_ptr<T>());
      if (want_masks)
        planes.backward_masks(Rows<T>(in_layout(features), p, scale, last), g, grad_masks.mutable_data_ptr<T>());
    } else {
      want(true);
      const Tensor x = channels_last(to_opmath(features)), g = channels_last(to_opmath(grad));
      const std::vector<T> zeros(p.group_channels());
      const Problem<T> problem{p, x.const_data_ptr<T>(), m.const_data_ptr<T>()};
      if (want_features) backward_features(problem, g.const_data_ptr<T>(), grad_features.mutable_data_ptr<T>());
      if (want_masks)
        backward_masks(problem, zeros.data(), g.const_data_ptr<T>(), grad_masks.mutable_data_ptr<T>());
      if (want_features && !last) grad_features = channels_first_cpu<T>(grad_features);
    }
  });
  return {to_dtype(grad_features, dtype), to_dtype(grad_masks, dtype)};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("carafe(Tensor features, Tensor masks, int kernel_size, int group_size, int scale_factor) -> Tensor");
  m.def("carafe_backward(Tensor grad, Tensor features, Tensor masks, int kernel_size, int group_size, "
        "int scale_factor, bool want_features, bool want_masks) -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) {
  m.impl("carafe", CV_BOX(&carafe_cpu));
  m.impl("carafe_backward", CV_BOX(&carafe_backward_cpu));
}

}  // namespace cv::carafe
