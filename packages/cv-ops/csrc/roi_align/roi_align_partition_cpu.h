#pragma once
// How the gradient of the map is shared out among threads, for both kinds of pooling.

#include <algorithm>

#include "../common/dispatch.h"
#include "../common/vec.h"
#include "roi_align.h"

namespace cv::roi_align {

constexpr int64_t kChannelBlock = 256;  // channels worked on at a time: long enough runs for the prefetcher

// Blocks of channels (whole cache lines), and where those are fewer than threads, interleaved rows too.
struct Partition {
  int64_t block, blocks, bands;

  template <typename T>
  static Partition make(const Params& p, tag<T>) {
    const int64_t threads = torch::stable::get_num_threads(), line = Vec<T>::size;
    const int64_t share = (p.channels / threads + line - 1) / line * line;
    const int64_t block = std::clamp(share, line, kChannelBlock), blocks = (p.channels + block - 1) / block;
    return Partition{block, blocks, (threads + blocks - 1) / blocks};
  }
};

}  // namespace cv::roi_align
