#pragma once
// The weights of regions, axis by axis: what both ways of pooling on the CPU start from.

#include <algorithm>
#include <cmath>
#include <vector>

#include "../common/roi_cpu.h"
#include "roi_align.h"

namespace cv::roi_align {

constexpr int64_t kRegionsAtOnce = 2048;  // whose weights are kept in the backward pass: bounds memory

// The weights of one axis: for each bin a short list of pixels.
template <typename T>
struct AxisWeights {
  std::vector<int32_t> begin;   // entries of bin b are [begin[b], begin[b + 1])
  std::vector<int32_t> pixel;   // of entry e
  std::vector<int32_t> place;   // of that pixel among `pixels`
  std::vector<T> weight;        // of entry e
  std::vector<int32_t> pixels;  // each pixel once, in order of appearance

  int64_t entries() const { return count_; }
  int64_t distinct() const { return distinct_; }

  void build(const Axis<T>& axis, int64_t bins, T scale) {
    begin.resize(bins + 1);
    count_ = distinct_ = 0;
    for (int64_t b = 0; b < bins; ++b) {
      const SampleRange range = samples_inside(axis, b);
      make_room(2 * static_cast<int64_t>(range.end - range.begin));
      begin[b] = count_;
      for (int32_t s = range.begin; s < range.end; ++s) {
        Tap<T> t;
        if (!make_tap(axis.position(b, s), axis.size, t)) continue;
        add(t.low, t.weight_low * scale, begin[b]);
        if (t.high > t.low) add(t.high, t.weight_high * scale, begin[b]);
      }
    }
    begin[bins] = count_;
  }

 private:
  int32_t count_ = 0, distinct_ = 0;

  void make_room(int64_t more) {
    const size_t need = static_cast<size_t>(count_ + more);
    if (need <= pixel.size()) return;
    const size_t size = std::max(need, 2 * pixel.size());
    for (auto* v : {&pixel, &place, &pixels}) v->resize(size);
    weight.resize(size);
  }

  // Samples come in order, so a pixel that was read before is one of the last (if not, no harm is done).
  void add(int32_t p, T w, int32_t first) {
    for (int32_t e = count_ - 1; e >= first && e >= count_ - 2; --e) {
      if (pixel[e] == p) {
        weight[e] += w;
        return;
      }
    }
    int32_t at = distinct_ - 1;
    while (at >= 0 && at >= distinct_ - 3 && pixels[at] != p) --at;
    if (at < 0 || at < distinct_ - 3) pixels[at = distinct_++] = p;
    pixel[count_] = p;
    place[count_] = at;
    weight[count_++] = w;
  }
};

template <typename T>
struct RegionWeights {
  int64_t image = -1;
  AxisWeights<T> y, x;

  void build(const T* roi, const Params& p) {
    const Region<T> r = make_region(roi, p);
    image = r.image;
    if (image < 0) return;
    y.build(r.y, p.pooled_h, T(1) / r.count);
    x.build(r.x, p.pooled_w, T(1));
  }
};

// The weights of one axis, for each of its distinct pixels a short list of bins.
template <typename T>
struct PixelWeights {
  std::vector<int32_t> begin;  // entries of the distinct pixel d are [begin[d], begin[d + 1])
  std::vector<int32_t> bin;    // of entry e
  std::vector<T> weight;       // of entry e

  void build(const AxisWeights<T>& axis, int64_t bins) {
    const int64_t distinct = axis.distinct(), entries = axis.entries();
    begin.assign(distinct + 1, 0);
    if (static_cast<int64_t>(bin.size()) < entries) bin.resize(entries), weight.resize(entries);
    for (int64_t e = 0; e < entries; ++e) ++begin[axis.place[e] + 1];
    for (int64_t d = 0; d < distinct; ++d) begin[d + 1] += begin[d];
    for (int64_t b = 0; b < bins; ++b) {
      for (int32_t e = axis.begin[b]; e < axis.begin[b + 1]; ++e) {
        const int32_t to = begin[axis.place[e]]++;
        bin[to] = static_cast<int32_t>(b), weight[to] = axis.weight[e];
      }
    }
    for (int64_t d = distinct; d > 0; --d) begin[d] = begin[d - 1];  // each has become the next one's
    begin[0] = 0;
  }
};

// For roi::add_regions: the same weights, and which pixels of the map they are of.
template <typename T>
struct GradientWeights : RegionWeights<T> {
  int64_t first_row = 0, last_row = -1;
  PixelWeights<T> by_row, by_column;

  void build(const T* roi, const Params& p, bool by_pixel) {
    RegionWeights<T>::build(roi, p);
    if (this->image < 0) return;
    const auto rows = this->y.pixels.begin();
    const auto [low, high] = std::minmax_element(rows, rows + this->y.distinct());
    first_row = 0, last_row = -1;
    if (this->y.distinct() > 0) first_row = *low, last_row = *high;
    if (by_pixel) by_row.build(this->y, p.pooled_h), by_column.build(this->x, p.pooled_w);
  }
};

// roi::add_regions with these weights
template <typename T, typename NewAdder>
void add_weighted(const T* rois, int64_t count, const Params& p, const roi::MapGrad<T>& to, double work,
                  NewAdder&& new_adder) {
  const auto batch_end = [&](int64_t first) { return std::min(first + kRegionsAtOnce, count); };
  const auto new_maker = [&] {
    return [&](GradientWeights<T>& r, int64_t k) { r.build(rois + 5 * k, p, to.runs); };
  };
  roi::add_regions<GradientWeights<T>>(count, p, to, work, batch_end, new_maker, new_adder);
}

// Pixels that all regions read together, roughly: distinct rows, and the entries along them.
template <typename T>
double pixels_read(const T* rois, int64_t count, const Params& p) {
  const T bins_y = static_cast<T>(p.pooled_h), bins_x = static_cast<T>(p.pooled_w);
  return roi::total_cost(count, p.channels >= roi::kFewChannels, [&](int64_t k) {
    const Region<T> r = make_region(rois + 5 * k, p);
    const T rows = std::min({2 * r.y.grid * bins_y, std::abs(r.y.bin) * bins_y + 2, static_cast<T>(r.y.size)});
    const T entries = std::min(2 * r.x.grid, std::abs(r.x.bin) + T(1.5)) * bins_x;
    return r.image < 0 ? 0.0 : static_cast<double>(rows) * static_cast<double>(std::min(entries, r.x.size + 2 * bins_x));
  });
}

}  // namespace cv::roi_align
