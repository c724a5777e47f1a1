#pragma once
// Matrix transpose on the CPU, and with it the way back from (N, H, W, C) to (N, C, H, W), for which torch's
// own copy takes two to three times as long (it is as fast as ours in the other direction).

#include <algorithm>

#include "isa.h"
#include "macros.h"
#include "memory_format.h"
#include "parallel.h"

namespace cv {

// Columns [begin, end) of in (rows, cols) to out (cols, rows). Sixteen rows at a time: those are sixteen
// sequential reads and whole cache lines written, whatever the strides are.
template <typename T>
CV_HD void transpose_columns(T* CV_RESTRICT out, const T* CV_RESTRICT in, int64_t rows, int64_t cols, int64_t begin,
                             int64_t end) {
  constexpr int64_t tile = 16;
  int64_t r = 0;
  for (; r + tile <= rows; r += tile)
    for (int64_t c = begin; c < end; ++c)
      for (int64_t i = 0; i < tile; ++i) out[c * rows + r + i] = in[(r + i) * cols + c];
  for (; r < rows; ++r)
    for (int64_t c = begin; c < end; ++c) out[c * rows + r] = in[r * cols + c];
}

// out (cols, rows) = in (rows, cols), whose rows are `out_stride` and `in_stride` apart
template <typename T>
CV_HD void transpose_strided(T* CV_RESTRICT out, int64_t out_stride, const T* CV_RESTRICT in, int64_t in_stride,
                             int64_t rows, int64_t cols) {
  constexpr int64_t tile = 16;
  int64_t r = 0;
  for (; r + tile <= rows; r += tile)
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t i = 0; i < tile; ++i) out[c * out_stride + r + i] = in[(r + i) * in_stride + c];
  for (; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) out[c * out_stride + r] = in[r * in_stride + c];
}

// out (cols, rows) = in (rows, cols), both small enough for the cache
template <typename T>
CV_HD void transpose_small(T* CV_RESTRICT out, const T* CV_RESTRICT in, int64_t rows, int64_t cols) {
  // tiles along the longer side, so that small matrices of 49 bins and many channels have whole tiles
  if (rows >= cols) return transpose_columns(out, in, rows, cols, 0, cols);
  constexpr int64_t tile = 16;
  int64_t c = 0;
  for (; c + tile <= cols; c += tile)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < tile; ++i) out[(c + i) * rows + r] = in[r * cols + c + i];
  for (; c < cols; ++c)
    for (int64_t r = 0; r < rows; ++r) out[c * rows + r] = in[r * cols + c];
}

// count matrices, one after the other, in parallel
template <typename T>
void transpose_batch(T* out, const T* in, int64_t count, int64_t rows, int64_t cols) {
  constexpr int64_t block = 256;  // columns per task
  const int64_t blocks = (cols + block - 1) / block;
  const int64_t grain = grain_for(rows * std::min(cols, block));
  torch::stable::parallel_for(0, count * blocks, grain, [&](int64_t begin, int64_t end) {
    vectorized([&] {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t at = task / blocks * rows * cols, c = task % blocks * block;
        transpose_columns(out + at, in + at, rows, cols, c, std::min(c + block, cols));
      }
    });
  });
}

// A CPU tensor of dtype T that is stored (N, H, W, C), made contiguous.
template <typename T>
Tensor channels_first_cpu(Tensor t) {
  if (t.is_contiguous()) return t;
  const int64_t n = t.size(0), c = t.size(1), h = t.size(2), w = t.size(3);
  Tensor out = empty_4d(t, n, c, h, w, t.scalar_type(), false);
  transpose_batch(out.template mutable_data_ptr<T>(), t.template const_data_ptr<T>(), n, h * w, c);
  return out;
}

// A CPU tensor (N, C, H, W) of dtype T, made (N, H, W, C) in memory. Calling torch's copy, which is as fast on large
// ones, takes four microseconds.
template <typename T>
Tensor channels_last_cpu(Tensor t) {
  constexpr int64_t small = 16384;
  if (t.numel() > small || has_channels_last_order(t) || !t.is_contiguous()) return channels_last(std::move(t));
  const int64_t n = t.size(0), c = t.size(1), h = t.size(2), w = t.size(3);
  Tensor out = empty_4d(t, n, c, h, w, t.scalar_type(), true);
  transpose_batch(out.template mutable_data_ptr<T>(), t.template const_data_ptr<T>(), n, c, h * w);
  return out;
}

}  // namespace cv
