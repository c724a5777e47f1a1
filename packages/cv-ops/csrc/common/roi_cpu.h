#pragma once
// What the CPU halves of the operators on regions share: whether a box names an image, how the gradient of a
// map is shared out among threads, and how it is handed back.

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "dispatch.h"
#include "memory_format.h"
#include "parallel.h"
#include "roi.h"
#include "transpose.h"
#include "vec.h"

namespace cv::roi {

constexpr int64_t kChannelBlock = 256;  // channels worked on at a time: long enough runs for the prefetcher
constexpr int64_t kFewChannels = 8;     // fewer are no runs that a loop over channels is worth
constexpr int64_t kLanes = 16;          // channels gathered at a time

// Whether regions that read so many pixels read more than this share of the maps. Sizes may be anything here: a
// gradient of 2^62 maps is refused when it is allocated.
template <typename Params>
bool reads_more(double read, double share, const Params& p) {
  return read > share * static_cast<double>(p.batch) * static_cast<double>(p.plane());
}

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

  // Blocks of kLanes: for channels that are no runs.
  static Partition of_lanes(int64_t channels) {
    const int64_t threads = torch::stable::get_num_threads(), blocks = (channels + kLanes - 1) / kLanes;
    return Partition{kLanes, blocks, (threads + blocks - 1) / blocks};
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

// The sum of cost(k) over the regions k < count; of some of them, where only the number of threads hangs on it.
template <typename F>
double total_cost(int64_t count, bool exactly, F&& cost) {
  const int64_t some = exactly ? count : std::min<int64_t>(count, 16);
  double total = 0;
  for (int64_t k = 0; k < some; ++k) total += cost(k);
  return some > 0 ? total / static_cast<double>(some) * static_cast<double>(count) : 0;
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

// Where the numbers of one image or region lie: of channel c and pixel (or bin) i at c * channel + i * item.
struct Strides {
  int64_t channel, item;

  static Strides of(bool nhwc, int64_t channels, int64_t items) {
    return nhwc ? Strides{1, channels} : Strides{items, 1};
  }
};

// work(tag, c) for the channels [c, c + N), N being kLanes, 4 or 1
template <typename F>
CV_HD void for_each_lanes(int64_t begin, int64_t end, F&& work) {
  for (; begin + kLanes <= end; begin += kLanes) work(std::integral_constant<int64_t, kLanes>{}, begin);
  for (; begin + 4 <= end; begin += 4) work(std::integral_constant<int64_t, 4>{}, begin);
  for (; begin < end; ++begin) work(std::integral_constant<int64_t, 1>{}, begin);
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

// Adds the gradients of regions one after the other, whose weights W are made beforehand. `new_maker()` and
// `new_adder()` give each thread its own make(w, k) and add(w, k, c, size, band, bands), with what they need to write
// in; `batch_end(first)` says of how many regions to keep the weights. Little work keeps those of one.
template <typename W, typename BatchEnd, typename NewMaker, typename NewAdder>
void add_regions(int64_t count, int64_t channels, const Partition& part, double work, BatchEnd&& batch_end,
                 NewMaker&& new_maker, NewAdder&& new_adder) {
  const int64_t tasks = part.blocks * part.bands, grain = grain_of_tasks(work, tasks);
  const auto add_block = [&](auto& add, const W& w, int64_t k, int64_t task, int64_t bands) {
    const int64_t c = task % part.blocks * part.block;
    if (w.image >= 0) add(w, k, c, std::min(part.block, channels - c), task / part.blocks, bands);
  };
  if (grain >= tasks || torch::stable::get_num_threads() == 1) {
    auto make = new_maker();
    auto add = new_adder();
    W w;
    for (int64_t k = 0; k < count; ++k) {
      make(w, k);
      for (int64_t block = 0; block < part.blocks; ++block) add_block(add, w, k, block, 1);
    }
    return;
  }
  std::vector<W> weights;
  for (int64_t first = 0, last; first < count; first = last) {
    last = batch_end(first);
    weights.resize(std::max(weights.size(), static_cast<size_t>(last - first)));
    torch::stable::parallel_for(first, last, 16, [&](int64_t begin, int64_t end) {
      auto make = new_maker();
      for (int64_t k = begin; k < end; ++k) make(weights[k - first], k);
    });
    torch::stable::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
      auto add = new_adder();
      for (int64_t task = begin; task < end; ++task)
        for (int64_t k = first; k < last; ++k) add_block(add, weights[k - first], k, task, part.bands);
    });
  }
}

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
