#pragma once
// What the CPU halves of the operators on regions share: whether a box names an image, how the gradient of a
// map is shared out among threads, and how it is handed back.

#include <algorithm>
#include <cmath>

#include "dispatch.h"
#include "memory_format.h"
#include "parallel.h"
#include "roi.h"
#include "transpose.h"
#include "vec.h"

namespace cv::roi {

constexpr int64_t kChannelBlock = 256;  // channels worked on at a time: long enough runs for the prefetcher

// Blocks of channels (whole cache lines), and where those are fewer than threads, interleaved rows too.
struct Partition {
  int64_t block, blocks, bands;

  template <typename T>
  static Partition make(int64_t channels, tag<T>) {
    const int64_t threads = torch::stable::get_num_threads(), line = Vec<T>::size;
    const int64_t share = (channels / threads + line - 1) / line * line;
    const int64_t block = std::clamp(share, line, kChannelBlock), blocks = (channels + block - 1) / block;
    return Partition{block, blocks, (threads + blocks - 1) / blocks};
  }
};

// The grain of a loop over regions, `channels` of each. How large a region is nobody knows yet: the map, perhaps.
inline int64_t grain_of_regions(const Params& p, int64_t channels) {
  return grain_for(4 * p.bins() * std::min(channels, p.channels) + p.plane());
}

// The grain of a loop over `tasks` that together take about so many operations.
inline int64_t grain_of_tasks(double operations, int64_t tasks) {
  return grain_for(static_cast<int64_t>(std::min(operations / static_cast<double>(std::max<int64_t>(1, tasks)), 1e9)));
}

// rois: (count, fields), the image's index first. One that is not finite is no error: its region is NaN.
template <typename T>
void check_images(const char* op, const T* rois, int64_t count, int64_t fields, int64_t batch) {
  for (int64_t k = 0; k < count; ++k) {
    const T image = rois[fields * k];
    STD_TORCH_CHECK(!(std::isfinite(image) && !(image >= T(0) && image < T(batch))), op, ": rois[", k, ", 0] is ",
                    static_cast<double>(image), ", but input has ", batch, " images");
  }
}

// Gradient of the output: (K, C, bins), or (K, bins, C) if nhwc.
template <typename T>
struct OutputGrad {
  const T* data;
  bool nhwc;

  // (bins, count) of the channels [c, c + count), rows `stride` apart; `buffer` holds it if it has to be turned
  CV_HD const T* block(const Params& p, int64_t k, int64_t c, int64_t count, T* buffer, int64_t& stride) const {
    const T* region = data + k * p.channels * p.bins();
    if (nhwc) {
      stride = p.channels;
      return region + c;
    }
    stride = count;
    transpose_small(buffer, region + c * p.bins(), count, p.bins());
    return buffer;
  }
};

// The gradient of a map (opmath dtype, channels last) as an operator returns it: in `dtype`, and channels last or
// contiguous.
inline Tensor hand_back(const Tensor& grad_input, ScalarType dtype, bool channels_last) {
  if (channels_last) return to_dtype(grad_input, dtype);
  Tensor first = grad_input;
  dispatch_float_double(grad_input.scalar_type(), "channels_first", [&](auto t) {
    first = channels_first_cpu<typename decltype(t)::type>(grad_input);
  });
  return to_dtype(first, dtype);
}

}  // namespace cv::roi
