#pragma once
// Which of the two layouts of a (N, C, H, W) tensor an operator should read and write.

#include "torch_stable.h"

namespace cv {

using torch::headeronly::MemoryFormat;

// Whether the elements of a tensor of four dimensions lie in the order (N, H, W, C).
inline bool has_channels_last_order(const Tensor& t) {
  int64_t expected = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    if (t.size(d) != 1 && t.stride(d) != expected) return false;
    expected *= t.size(d);
  }
  return true;
}

// True for a tensor that is stored (N, H, W, C) and is not contiguous as well (a tensor with one channel
// or one pixel is both, and then counts as contiguous). cv.ops._memory_format has the same rule for fakes.
inline bool is_channels_last(const Tensor& t) {
  return t.dim() == 4 && !t.is_contiguous() && has_channels_last_order(t);
}

// Elements in the order (N, H, W, C); no copy of a map with one channel or one pixel.
inline Tensor channels_last(Tensor t) {
  if (has_channels_last_order(t)) return t;
  return torch::stable::contiguous(t, MemoryFormat::ChannelsLast);
}

// Uninitialised (n, c, h, w) beside `like`, in either layout.
inline Tensor empty_4d(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w, ScalarType dtype,
                       bool channels_last) {
  if (!channels_last) return empty_beside(like, {n, c, h, w}, dtype);
  const int64_t row = checked_product(w, c), image = checked_product(h, row);
  const int64_t sizes[] = {n, c, h, w}, strides[] = {image, 1, row, c};  // as torch has them if one is 0 too
  return empty_strided_beside(like, 4, sizes, strides, dtype);
}

}  // namespace cv
