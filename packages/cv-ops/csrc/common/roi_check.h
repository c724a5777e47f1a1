#pragma once
// What every operator on regions refuses. Its Python function says the same in better words once this has failed
// (cv.ops._roi has the twins of these checks).

#include <limits>

#include "roi.h"
#include "torch_stable.h"

namespace cv::roi {

constexpr int64_t kMaxSamples = 4096;  // along each axis of a bin

inline void check_map_and_rois(const char* op, const Tensor& x, const Tensor& rois, int64_t fields) {
  STD_TORCH_CHECK(is_floating(x) && is_floating(rois), op, ": input and rois must have a floating dtype");
  STD_TORCH_CHECK(x.dim() == 4, op, ": input must have shape (N, C, H, W)");
  STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == fields, op, ": rois must have shape (K, ", fields, ")");
  STD_TORCH_CHECK(on_same_device(x, rois), op, ": rois must be on the device of input");
  STD_TORCH_CHECK(x.size(2) > 0 && x.size(3) > 0, op, ": input must have at least one pixel");
}

// Of the backward pass too: it gets these numbers, and the size of the map, from its caller.
inline void check_numbers(const char* op, const Params& p) {
  STD_TORCH_CHECK(p.pooled_h > 0 && p.pooled_w > 0, op, ": output_size must be positive");
  STD_TORCH_CHECK(p.spatial_scale > 0 && p.spatial_scale <= std::numeric_limits<double>::max(), op,
                  ": spatial_scale must be positive and finite");
  STD_TORCH_CHECK(p.sampling_ratio <= kMaxSamples, op, ": sampling_ratio must be at most ", kMaxSamples);
  STD_TORCH_CHECK(checked_product(p.height, p.width) < (int64_t{1} << 31), op,
                  ": a map must have fewer than 2^31 pixels");
}

}  // namespace cv::roi
