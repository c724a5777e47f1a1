#pragma once
// Which of the two layouts of a (N, C, H, W) tensor an operator should read and write.

#include "torch_stable.h"

namespace cv {

using torch::headeronly::MemoryFormat;

// True for a tensor that is stored (N, H, W, C) and is not contiguous as well (a tensor with one channel
// or one pixel is both, and then counts as contiguous). cv.ops._memory_format has the same rule for fakes.
inline bool is_channels_last(const Tensor& t) {
  if (t.dim() != 4 || t.is_contiguous()) return false;
  int64_t expected = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    if (t.size(d) != 1 && t.stride(d) != expected) return false;
    expected *= t.size(d);
  }
  return true;
}

inline Tensor channels_last(const Tensor& t) {
  return is_channels_last(t) ? t : torch::stable::contiguous(t, MemoryFormat::ChannelsLast);
}

// Uninitialised (n, c, h, w) beside `like`, in either layout.
inline Tensor empty_4d(const Tensor& like, int64_t n, int64_t c, int64_t h, int64_t w, ScalarType dtype,
                       bool channels_last) {
  return torch::stable::empty({n, c, h, w}, dtype, std::nullopt, like.device(), std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

}  // namespace cv
