#pragma once
// What the CPU halves of the operators on regions share: whether a box names an image, how the gradient of a
// map is shared out among threads, and how it is handed back.

#include <algorithm>
#include <cmath>
#include <numeric>
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

// The gradient of a map, to be written whole: (N, H, W, C) if nhwc, else (N, C, H, W).
template <typename T>
struct MapGrad {
  T* data;
  bool nhwc;
  bool runs;  // whether regions add to pixels whose channels lie side by side; planes are turned from those then
};

// What one task adds gradients to: the rows [begin, end) of an image, the channels [c, c + count).
template <typename T>
struct Patch {
  int64_t image, begin, end, c, count;
  T* data;  // channel c of the first pixel of the row `begin`
  Strides strides;

  CV_HD bool has(int64_t row) const { return row >= begin && row < end; }
};

// How the gradient of a map is cut into patches: by its shape, never by the number of threads.
struct Cut {
  static constexpr int64_t kTasks = 16;       // at least, if there are as many rows
  static constexpr int64_t kBytes = 1 << 19;  // of a patch of runs: stays in the second-level cache

  int64_t block, blocks, rows, bands;

  Cut(const Params& p, bool runs, int64_t bytes)
      : block(runs ? p.channels : std::min(p.channels, kLanes)), blocks((p.channels + block - 1) / block) {
    const int64_t wanted = (kTasks + p.batch * blocks - 1) / (p.batch * blocks);
    rows = std::max<int64_t>(1, p.height / wanted);
    if (runs) rows = std::clamp<int64_t>(kBytes / (p.width * p.channels * bytes), 1, rows);
    bands = (p.height + rows - 1) / rows;
  }
};

// A number without a common divisor with n, near the golden section of it: in the order t * step % n, whichever part of
// all t one thread takes is spread evenly.
inline int64_t spreading_step(int64_t n) {
  int64_t step = std::max<int64_t>(1, n * 5 / 8);
  while (std::gcd(step, n) != 1) --step;
  return step;
}

// Elements in the order (N, H, W, C). Fresh memory of ours is on huge pages, which torch's copy has not.
template <typename T>
Tensor in_runs(const Tensor& t) {
  if (has_channels_last_order(t) || !t.is_contiguous()) return channels_last(t);
  Tensor out = empty_4d(t, t.size(0), t.size(1), t.size(2), t.size(3), t.scalar_type(), true);
  transpose_batch(out.template mutable_data_ptr<T>(), t.template const_data_ptr<T>(), t.size(0), t.size(1),
                  t.size(2) * t.size(3));
  return out;
}

template <typename T>
void clear(const Patch<T>& patch, const Params& p) {
  const int64_t pixels = (patch.end - patch.begin) * p.width;
  if (patch.strides.channel == 1) {
    std::fill_n(patch.data, pixels * patch.count, T(0));
  } else {
    for (int64_t i = 0; i < patch.count; ++i) std::fill_n(patch.data + i * patch.strides.channel, pixels, T(0));
  }
}

// A patch of runs to planes; `more` adds to what they have.
template <typename T>
void turn_out(const Patch<T>& patch, const Params& p, const Patch<T>& out, bool more) {
  const int64_t pixels = (patch.end - patch.begin) * p.width, plane = out.strides.channel;
  vectorized([&] {
    if (!more) return transpose_strided(out.data, plane, patch.data, p.channels, pixels, p.channels);
    for (int64_t c = 0; c < p.channels; ++c)
      for (int64_t i = 0; i < pixels; ++i) out.data[c * plane + i] += patch.data[i * p.channels + c];
  });
}

// The gradient of a map: regions are added one after the other, patch by patch. A region has weights W, made
// beforehand, with its image (-1: none) and the rows [first_row, last_row] that it reads. `new_maker()` and
// `new_adder()` give each thread its own make(w, k) and add(w, k, patch), with what they need to write in;
// `batch_end(first)` says of how many regions to keep the weights. Little work keeps those of one.
template <typename W, typename T, typename BatchEnd, typename NewMaker, typename NewAdder>
void add_regions(int64_t count, const Params& p, const MapGrad<T>& to, double work, BatchEnd&& batch_end,
                 NewMaker&& new_maker, NewAdder&& new_adder) {
  const Cut cut(p, to.runs, sizeof(T));
  const int64_t tasks = p.batch * cut.blocks * cut.bands, size = p.batch * p.channels * p.plane();
  const int64_t grain = grain_of_tasks(work + static_cast<double>(size) / 8, tasks);
  const bool turn = to.runs && !to.nhwc;
  const auto patch_at = [&](T* data, bool nhwc, int64_t image, int64_t begin, int64_t end, int64_t c) {
    const Strides strides = Strides::of(nhwc, p.channels, p.plane());
    T* at = data + image * p.channels * p.plane() + c * strides.channel + begin * p.width * strides.item;
    return Patch<T>{image, begin, end, c, std::min(cut.block, p.channels - c), at, strides};
  };
  if (grain >= tasks || (!to.runs && torch::stable::get_num_threads() == 1)) {
    std::vector<T> turned(turn ? size : 0);
    T* data = turn ? turned.data() : to.data;
    if (!turn) std::fill_n(data, size, T(0));
    auto make = new_maker();
    auto add = new_adder();
    W w;
    for (int64_t k = 0; k < count; ++k) {
      make(w, k);
      if (w.image < 0) continue;
      for (int64_t block = 0; block < cut.blocks; ++block)
        add(w, k, patch_at(data, to.nhwc || turn, w.image, 0, p.height, block * cut.block));
    }
    if (turn) transpose_batch(to.data, turned.data(), p.batch, p.plane(), p.channels);
    return;
  }
  const int64_t step = spreading_step(tasks);
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
      std::vector<T> turned(turn ? cut.rows * p.width * p.channels : 0);
      for (int64_t t = begin; t < end; ++t) {
        const int64_t task = t * step % tasks, band = task / cut.blocks % cut.bands;
        const int64_t from = band * cut.rows, until = std::min(from + cut.rows, p.height);
        const Patch<T> out = patch_at(to.data, to.nhwc, task / cut.blocks / cut.bands, from, until,
                                      task % cut.blocks * cut.block);
        Patch<T> patch = out;
        if (turn) patch.data = turned.data(), patch.strides = Strides::of(true, p.channels, 0);
        if (turn || first == 0) clear(patch, p);
        bool read = first == 0;
        for (int64_t k = first; k < last; ++k) {
          const W& w = weights[k - first];
          if (w.image != patch.image || w.last_row < from || w.first_row >= until) continue;
          add(w, k, patch);
          read = true;
        }
        if (turn && read) turn_out(patch, p, out, first > 0);
      }
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
