#pragma once
// What both backends share: columns, which are sampled for some output pixels at a time and then multiplied by the
// weight, the inputs as kernels read them, and the tensors of the gradients.
//
// Output pixels are numbered through the batch: image * out_plane + row * out_w + column.

#include <optional>
#include <tuple>

#include "../common/memory_format.h"
#include "deform_conv_args.h"

namespace cv::deform_conv {

// Columns of a block of pixels: (groups, pixels, taps, group_channels). One group's part is a matrix.
struct ColumnLayout {
  int64_t group_channels, row, group;  // row: stride between pixels; group: stride between groups

  ColumnLayout(const Geometry& g, int64_t pixels) : ColumnLayout(g, pixels, g.taps()) {}
  // Of so many taps alone.
  ColumnLayout(const Geometry& g, int64_t pixels, int64_t taps)
      : group_channels(g.group_channels()), row(taps * group_channels), group(pixels * row) {}

  CV_HD int64_t index(int64_t pixel, int64_t tap, int64_t channel) const {
    // The division is what a sample would spend most time on, and most convolutions have one group.
    if (channel < group_channels) return pixel * row + tap * group_channels + channel;
    return channel / group_channels * group + pixel * row + tap * group_channels + channel % group_channels;
  }
};

// Inputs as the kernels read them: input (N, H, W, C) and weight (Cout, KH, KW, C / groups) in `dtype`, offset
// and mask contiguous in its opmath dtype, since a fraction of a pixel needs more bits than a half type has.
struct Inputs {
  ScalarType dtype;
  Tensor input, offset, weight;
  std::optional<Tensor> mask;

  Inputs(const Tensor& x, const Tensor& o, const std::optional<Tensor>& m, const Tensor& w, ScalarType dtype_)
      : dtype(dtype_),
        input(channels_last(to_dtype(x, dtype_))),
        offset(as_contiguous(to_dtype(o, opmath_dtype(dtype_)))),
        weight(channels_last(to_dtype(w, dtype_))) {
    if (m) mask = as_contiguous(to_dtype(*m, opmath_dtype(dtype_)));
  }
};

// Where gradients are added up, null where not wanted: input (N, H, W, C), offset and mask in their own
// layout, weight (Cout, KH, KW, C / groups). All but offset and mask start at zero.
template <typename A>
struct Gradients {
  A *input = nullptr, *offset = nullptr, *mask = nullptr, *weight = nullptr;
};

// The tensors behind Gradients, in opmath dtype; those not wanted have no elements.
class GradientTensors {
 public:
  GradientTensors(const Geometry& g, const Tensor& x, const Tensor& o, const std::optional<Tensor>& m, bool want_input,
                  bool want_offset, bool want_weight)
      : dtype_(opmath_dtype(x.scalar_type())),
        input_(make(x, want_input, g.batch, g.channels, g.height, g.width, true)),
        offset_(make(x, want_offset, g.batch, o.size(1), g.out_h, g.out_w, false)),
        mask_(make(x, want_offset && m, g.batch, m ? m->size(1) : 0, g.out_h, g.out_w, false)),
        weight_(make(x, want_weight, g.out_channels, g.group_channels(), g.kernel_h, g.kernel_w, true)) {}

  template <typename A>
  Gradients<A> pointers() const {
    const auto data = [](const Tensor& t) { return t.dim() == 4 ? t.mutable_data_ptr<A>() : nullptr; };
    return Gradients<A>{data(input_), data(offset_), data(mask_), data(weight_)};
  }

  // Each in the dtype of what it is the gradient of; input and weight in its layout too.
  std::tuple<Tensor, Tensor, Tensor, Tensor> finish(const Tensor& x, const Tensor& o, const std::optional<Tensor>& m,
                                                    const Tensor& w) const {
    return {convert(input_, x.scalar_type(), is_channels_last(x)), convert(offset_, o.scalar_type(), false),
            convert(mask_, m ? m->scalar_type() : dtype_, false),
            convert(weight_, w.scalar_type(), is_channels_last(w))};
  }

 private:
  Tensor make(const Tensor& like, bool wanted, int64_t n, int64_t c, int64_t h, int64_t w, bool last) const {
    if (!wanted) return empty_beside(like, {0}, dtype_);
    Tensor t = empty_4d(like, n, c, h, w, dtype_, last);
    return zero_(t);
  }
  static Tensor convert(const Tensor& t, ScalarType dtype, bool last) {
    if (t.dim() != 4) return to_dtype(t, dtype);
    return last ? channels_last(to_dtype(t, dtype)) : as_contiguous(to_dtype(t, dtype));
  }

  ScalarType dtype_;
  Tensor input_, offset_, mask_, weight_;
};

}  // namespace cv::deform_conv
