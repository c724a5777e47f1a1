#pragma once
// Labels that spread over the pixels of an image, from a queue, to the four neighbours; on the CPU.
//
// The map has a border of one pixel that is never entered, so a step needs no bounds check. The queue is an
// array: each pixel joins at most once. Order is first in, first out, and neighbours are visited above, left,
// right, below: the result is the same in every run.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cv {

class LabelMap {
 public:
  LabelMap(int64_t height, int64_t width)
      : height_(height), width_(width), stride_(width + 2), labels_((height + 2) * stride_, 0) {}

  int64_t stride() const { return stride_; }
  int64_t at(int64_t y, int64_t x) const { return (y + 1) * stride_ + x + 1; }
  int64_t size() const { return static_cast<int64_t>(labels_.size()); }
  int32_t& operator[](int64_t i) { return labels_[i]; }
  int32_t operator[](int64_t i) const { return labels_[i]; }

  // f(pixel of the map, pixel of the image) in reading order.
  template <typename F>
  void each(F&& f) const {
    for (int64_t y = 0; y < height_; ++y)
      for (int64_t x = 0; x < width_; ++x) f(at(y, x), y * width_ + x);
  }

  // Spreads the labels of the queued pixels over unlabelled neighbours that `enters(from, to)` allows (it must be
  // false on the border). The queue ends with every pixel that was in it or joined.
  template <typename Enters>
  void spread(std::vector<int64_t>& queue, Enters&& enters) {
    const int64_t steps[4] = {-stride_, -1, 1, stride_};
    for (std::size_t head = 0; head < queue.size(); ++head) {
      const int64_t from = queue[head];
      for (int64_t step : steps) {
        const int64_t to = from + step;
        if (labels_[to] != 0 || !enters(from, to)) continue;
        labels_[to] = labels_[from];
        queue.push_back(to);
      }
    }
  }

 private:
  int64_t height_, width_, stride_;
  std::vector<int32_t> labels_;
};

}  // namespace cv
