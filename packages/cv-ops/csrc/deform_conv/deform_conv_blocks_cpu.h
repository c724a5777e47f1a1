#pragma once
// The algorithm on the CPU: a thread samples the columns of a block of output pixels and multiplies them while its
// own cache has them. A block's matrix product runs on one thread: a product this small loses a quarter of its speed
// when it is cut for two.
//
// Blocks, and the slices whose weight gradients are summed apart, are cut by shape alone, so that results do not
// depend on the number of threads. Each element of grad_input belongs to one task, which adds into it in the order of
// pixels and taps, for an image of its own or half of one.
//
// A product gives what is done with columns:
//   forward(block, columns, out)                                 their output pixels
//   column_grads(block, grad_out, columns)                       their gradient
//   weight_grads(block, taps, columns, grad_out, sum, fresh)     sum (+)= the part of grad_weight they give
//   finish(grad_weight)                                          from the order of those sums to that of the weight

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/isa.h"
#include "../common/transpose.h"
#include "deform_conv_columns.h"
#include "deform_conv_samples_cpu.h"

namespace cv::deform_conv {

using torch::stable::parallel_for;

struct Block {
  int64_t first, pixels;
};

// Output pixels as blocks of about the same size: parts of an image, or several whole images.
class Blocks {
 public:
  // At most `wanted` pixels, or kFewest.
  Blocks(const Geometry& g, int64_t wanted) {
    wanted = std::max(wanted, kFewest);
    const int64_t plane = g.out_plane();
    if (plane >= wanted) {
      unit_ = plane;
      const int64_t parts = (plane + wanted - 1) / wanted;
      per_unit_ = std::max<int64_t>(1, std::min((parts + 3) / 4 * 4, plane / kFewest));  // fours: threads are even
      size_ = (plane + per_unit_ - 1) / per_unit_;
    } else {
      unit_ = g.pixels();
      size_ = wanted / plane * plane;
    }
    per_unit_ = (unit_ + size_ - 1) / size_;
    count_ = g.pixels() / unit_ * per_unit_;
    units_ = unit_ == plane ? g.batch : count_;
  }

  int64_t count() const { return count_; }
  int64_t units() const { return units_; }  // that no block crosses, of about as many blocks each
  int64_t largest() const { return std::min(size_, unit_); }
  Block operator[](int64_t i) const {
    const int64_t at = i % per_unit_ * size_;
    return {i / per_unit_ * unit_ + at, std::min(size_, unit_ - at)};
  }

 private:
  static constexpr int64_t kFewest = 96;  // or a product is mostly its weights

  int64_t unit_, size_, per_unit_, count_, units_;
};

template <typename T, typename Product>
class BlockDriver {
 public:
  // p.g: as the samples are to be seen; `product` has its own geometry.
  BlockDriver(const Problem<T>& p, const Product& product)
      : p_(p), g_(p.g), product_(product), row_(g_.channels * g_.taps()),
        blocks_(g_, std::min<int64_t>(1024, pixels_of_block(row_))) {}

  // Everything but the bias.
  void forward(T* out) const {
    parallel_for(0, blocks_.count(), 1, [&](int64_t begin, int64_t end) {
      const Tensor owner = scratch(blocks_.largest() * row_);
      T* columns = owner.mutable_data_ptr<T>();
      for (int64_t i = begin; i < end; ++i) {
        sample(blocks_[i], {0, g_.taps()}, columns);
        product_.forward(blocks_[i], columns, out);
      }
    });
  }

  void backward(const T* grad_out, const Gradients<T>& grads) const {
    if (grads.input || grads.offset) sample_gradients(grad_out, grads);
    if (grads.weight) weight_gradients(grad_out, grads.weight);
  }

 private:
  int64_t pixels_of_block(int64_t row) const { return product_.block_bytes() / (row * int64_t{sizeof(T)}); }

  Tensor scratch(int64_t size) const { return empty_beside(product_.like(), {size}, product_.dtype()); }

  void sample(Block block, Taps taps, T* columns) const {
    const ColumnLayout layout(g_, block.pixels, taps.end - taps.begin);
    vectorized([&] { sample_pixels(p_, block.first, block.pixels, taps, layout, columns); });
  }

  // Slices whose grad_input no other slice adds to: images, or halves of a single one, of which the second has a map
  // of its own. A thread that has a slice to itself finds in its cache what it is to add.
  void sample_gradients(const T* grad_out, const Gradients<T>& grads) const {
    const bool halves = g_.batch == 1 && blocks_.count() > 1;
    const int64_t slices = halves ? 2 : blocks_.units(), map = g_.batch * g_.channels * g_.height * g_.width;
    const Tensor owner = scratch(halves && grads.input ? map : 0);
    if (halves && grads.input) zero_(owner);
    T* second = owner.mutable_data_ptr<T>();
    const auto run = [&](int64_t slice, int64_t threads) {
      Gradients<T> to = grads;
      if (halves && grads.input && slice == 1) to.input = second;
      blocks_gradients(slice * blocks_.count() / slices, (slice + 1) * blocks_.count() / slices, threads, grad_out, to);
    };
    const int64_t threads = torch::stable::get_num_threads();
    if (slices % threads == 0 || slices > 4 * threads || slices == blocks_.count()) {
      parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
        for (int64_t slice = begin; slice < end; ++slice) run(slice, 1);
      });
    } else {
      for (int64_t slice = 0; slice < slices; ++slice) run(slice, threads);
    }
    if (halves && grads.input) add(grads.input, second, map);
  }

  // Of blocks [begin, end): as many at a time as there are threads; then, together, what they add to grad_input.
  void blocks_gradients(int64_t begin_block, int64_t end_block, int64_t threads, const T* grad_out,
                        const Gradients<T>& grads) const {
    threads = std::min(threads, end_block - begin_block);
    const int64_t size = blocks_.largest(), per_pixel = g_.deform_groups * g_.taps();
    const Tensor owner = scratch(threads * size * row_);
    T* columns = owner.mutable_data_ptr<T>();
    std::vector<Tap<T>> taps(grads.input ? threads * size * per_pixel : 0);
    for (int64_t first = begin_block; first < end_block; first += threads) {
      const int64_t last = std::min(first + threads, end_block);
      parallel_for(first, last, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const Block block = blocks_[i];
          const ColumnLayout layout(g_, block.pixels, g_.taps());
          T* at = columns + (i - first) * size * row_;
          Tap<T>* to = taps.data() + (i - first) * size * per_pixel;
          product_.column_grads(block, grad_out, at);
          vectorized([&] {
            if (grads.offset) grad_pixels(p_, block.first, block.pixels, layout, at, grads.offset, grads.mask);
            if (grads.input) keep_samples(p_, block.first, block.pixels, to);
          });
        }
      });
      if (grads.input) scatter_blocks(first, last, threads, taps.data(), columns, grads.input);
    }
  }

  // Tasks are blocks of channels, whole cache lines and long enough to be worth finding the sample for; where there
  // are fewer than threads, bands of rows too.
  void scatter_blocks(int64_t first, int64_t last, int64_t threads, const Tap<T>* taps, const T* columns,
                      T* grad_input) const {
    const int64_t line = Vec<T>::size;
    const int64_t size = blocks_.largest(), per_pixel = g_.deform_groups * g_.taps();
    const int64_t width = std::max(4 * line, (g_.channels / threads + line - 1) / line * line);
    const int64_t cuts = (g_.channels + width - 1) / width, bands = (threads + cuts - 1) / cuts;
    parallel_for(0, cuts * bands, 1, [&](int64_t begin, int64_t end) {
      vectorized([&] {
        for (int64_t task = begin; task < end; ++task)
          for (int64_t i = first; i < last; ++i) {
            const Block block = blocks_[i];
            const int64_t c = task % cuts * width;
            scatter(g_, taps + (i - first) * size * per_pixel, block.first, block.pixels,
                    ColumnLayout(g_, block.pixels, g_.taps()), columns + (i - first) * size * row_, c,
                    std::min(c + width, g_.channels),
                    Band{static_cast<uint32_t>(task / cuts), static_cast<uint32_t>(bands)}, grad_input);
          }
      });
    });
  }

  // Slices of the blocks have sums of their own, so many that summing those costs little; where that leaves few
  // tasks, taps are apart as well.
  void weight_gradients(const T* grad_out, T* grad_weight) const {
    const int64_t most = g_.pixels() / (2 * product_.rows()), size = product_.weights();
    const int64_t cuts = most < 8 && product_.cuts_taps() ? g_.taps() : 1, width = g_.taps() / cuts;
    const Blocks blocks = cuts == 1 ? blocks_ : Blocks(g_, pixels_of_block(row_ / cuts));
    const int64_t slices = std::clamp<int64_t>(most, 1, std::min<int64_t>(blocks.count(), 16));
    const Tensor owner = scratch((slices - 1) * size);
    T* sums = owner.mutable_data_ptr<T>();
    parallel_for(0, slices * cuts, 1, [&](int64_t begin, int64_t end) {
      const Tensor columns_owner = scratch(blocks.largest() * row_ / cuts);
      T* columns = columns_owner.mutable_data_ptr<T>();
      for (int64_t task = begin; task < end; ++task) {
        const int64_t slice = task / cuts, first = slice * blocks.count() / slices;
        const Taps taps{task % cuts * width, (task % cuts + 1) * width};
        T* sum = slice == 0 ? grad_weight : sums + (slice - 1) * size;
        for (int64_t i = first; i < (slice + 1) * blocks.count() / slices; ++i) {
          sample(blocks[i], taps, columns);
          product_.weight_grads(blocks[i], taps, columns, grad_out, sum, i == first);
        }
      }
    });
    for (int64_t s = 1; s < slices; ++s) add(grad_weight, sums + (s - 1) * size, size);
    product_.finish(grad_weight);
  }

  static void add(T* sum, const T* more, int64_t n) {
    parallel_for(0, n, 4096, [&](int64_t begin, int64_t end) {
      vectorized([&] { add_scaled(sum + begin, more + begin, T(1), end - begin); });
    });
  }

  const Problem<T>& p_;
  const Geometry& g_;
  const Product& product_;
  int64_t row_;
  Blocks blocks_;
};

}  // namespace cv::deform_conv
