// psa_mask on CUDA. Floor: the pairs and the part of the masks that lies in the map, each read or written once.
//
// A block moves a tile of kTile x kTile pairs (x, w) of one matrix (see the header), which comes from 2 kTile - 1
// diagonals of the masks, through shared memory, so that both sides are accessed along neighbours.

#include "../common/cuda_utils.cuh"
#include "psa_mask_args.h"

namespace cv::psa_mask {
namespace {

constexpr int kTile = 32;
constexpr int kRows = 8;  // threads of a block: kTile x kRows

// Rows of the shared tile are diagonals d = x - w + kTile - 1, columns w. A step along w at fixed x is one along a
// row less one row, a step along x at fixed w one row: with an odd and an even pitch for the two kinds, both
// go through all banks.
template <typename T, bool kDistribute, bool kBackward>
__global__ void move_kernel(Geometry g, const T* __restrict__ from, T* __restrict__ to, int64_t blocks) {
  constexpr int pitch = kDistribute ? kTile + 1 : kTile + 2;
  __shared__ T tile[(2 * kTile - 1) * pitch];
  const int lane = threadIdx.x, first = threadIdx.y;
  const int64_t tiles = (g.w + kTile - 1) / kTile;
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    int64_t rest = block;
    const int64_t w0 = rest % tiles * kTile;
    rest /= tiles;
    const int64_t x0 = rest % tiles * kTile;
    rest /= tiles;
    const int64_t y = rest % g.h;
    rest /= g.h;
    const int64_t h = rest % g.h, n = rest / g.h;
    const int64_t i = y - h + g.half_h();
    const bool reached = i >= 0 && i < g.mask_h;
    if (kBackward && !reached) continue;  // the same for the whole block, as is everything that a loop turns on
    const int64_t masks = reached ? g.masks_at(n, h, i) : 0, pairs = g.pairs_at(n, h, y);
    // element (d, w) of the tile: mask column j, and pair (x, w)
    auto mask_of = [&](int d, int w, int64_t& j) {
      const int64_t x = x0 + d - (kTile - 1) + w;
      j = x - (w0 + w) + g.half_w();
      return reached && x >= x0 && x < x0 + kTile && x < g.w && w0 + w < g.w && j >= 0 && j < g.mask_w;
    };
    auto each_mask = [&](auto&& visit) {
      for (int d = first; d < 2 * kTile - 1; d += kRows) {
        int64_t j;
        const bool inside = mask_of(d, lane, j);
        visit(tile[d * pitch + lane], masks + j * g.masks_row() + w0 + lane, inside);
      }
    };
    auto each_pair = [&](auto&& visit) {
      for (int k = first; k < kTile; k += kRows) {
        const int x = kDistribute ? lane : k, w = kDistribute ? k : lane;  // the lane runs along neighbours
        if (x0 + x < g.w && w0 + w < g.w)
          visit(tile[(x - w + kTile - 1) * pitch + w], pairs + (x0 + x) * g.pairs_x() + (w0 + w) * g.pairs_w());
      }
    };
    if (kBackward) {
      each_pair([&](T& cell, int64_t at) { cell = from[at]; });
      __syncthreads();
      each_mask([&](T& cell, int64_t at, bool inside) {
        if (inside) to[at] = cell;
      });
    } else {
      each_mask([&](T& cell, int64_t at, bool inside) { cell = inside ? from[at] : T(0); });
      __syncthreads();
      each_pair([&](T& cell, int64_t at) { to[at] = cell; });
    }
    __syncthreads();  // before the next tile overwrites this one
  }
}

template <bool kBackward>
void move(const Geometry& g, const Tensor& from, const Tensor& to, cudaStream_t stream) {
  const int64_t tiles = (g.w + kTile - 1) / kTile, blocks = g.n * g.h * g.h * tiles * tiles;
  const unsigned grid = static_cast<unsigned>(blocks < (1 << 20) ? blocks : (1 << 20));
  dispatch_element_size(from, "psa_mask", [&](auto type) {
    using T = typename decltype(type)::type;
    const T* source = static_cast<const T*>(from.const_data_ptr());
    T* target = static_cast<T*>(to.mutable_data_ptr());
    const dim3 threads(kTile, kRows);
    if (g.distribute)
      move_kernel<T, true, kBackward><<<grid, threads, 0, stream>>>(g, source, target, blocks);
    else
      move_kernel<T, false, kBackward><<<grid, threads, 0, stream>>>(g, source, target, blocks);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

Tensor forward_cuda(const Tensor& input, int64_t mask_h, int64_t mask_w, bool distribute) {
  const Geometry g = geometry_of(input, mask_h, mask_w, distribute);
  const CudaScope scope(input);
  const Tensor x = as_contiguous(input), out = empty_pairs(x, g);
  if (out.numel() > 0) move<false>(g, x, out, scope.stream);
  return out;
}

Tensor backward_cuda(const Tensor& grad, int64_t mask_h, int64_t mask_w, bool distribute) {
  const Geometry g = geometry_of_grad(grad, mask_h, mask_w, distribute);
  const CudaScope scope(grad);
  const Tensor x = as_contiguous(grad);
  // What reaches out of the map is no pair's, and stays 0.
  const Tensor out = torch::stable::new_zeros(x, {g.n, g.mask_h * g.mask_w, g.h, g.w}, x.scalar_type());
  if (x.numel() > 0) move<true>(g, x, out, scope.stream);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("psa_mask", CV_BOX(&forward_cuda));
  m.impl("psa_mask_backward", CV_BOX(&backward_cuda));
}

}  // namespace cv::psa_mask
