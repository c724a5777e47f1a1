// upfirdn2d on CUDA. Floor: the input read once, the output written once.
//
// The filters of StyleGAN2 (4 x 4; blur, twice as large, half as large) have a kernel of their own: a block
// brings the samples of a tile of outputs into shared memory, and each thread computes a small rectangle of
// outputs from a window of samples in registers. Tiles start where o down - pad is a multiple of up, so that
// which tap meets which sample is known when compiling. Everything else runs one output per thread and reads
// through the cache. No atomics: the same result in every run.

#include <climits>

#include "../common/cuda_utils.cuh"
#include "upfirdn2d_args.h"

namespace cv::upfirdn2d {
namespace {

// Positions along an axis fit 32 bits (checked below); offsets into a tensor are 64-bit.
struct Axis32 {
  int in, out, up, down, pad, taps;
};

inline Axis32 narrow(const Axis& a) {
  const int64_t extent = a.in * a.up + a.out * a.down + (a.pad < 0 ? -a.pad : a.pad) + a.taps + a.up + a.down;
  STD_TORCH_CHECK(a.in < INT_MAX && a.out < INT_MAX && extent < INT_MAX / 2,
                  "upfirdn2d: an axis has more than 2^30 positions after upsampling and padding");
  return {static_cast<int>(a.in),   static_cast<int>(a.out), static_cast<int>(a.up),
          static_cast<int>(a.down), static_cast<int>(a.pad), static_cast<int>(a.taps)};
}

__device__ __forceinline__ int floor_div32(int a, int b) { return a / b - (a % b < 0 ? 1 : 0); }

// --- any filter ---------------------------------------------------------------------------------------

template <typename T>
__global__ void any_kernel(const T* __restrict__ in, const opmath_t<T>* __restrict__ kernel, Axis32 y, Axis32 x,
                           bool flip, int64_t n, T* __restrict__ out) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, n) {
    const int64_t row = i / x.out;
    const int ox = static_cast<int>(i - row * x.out);
    const int64_t plane = row / y.out;
    const int oy = static_cast<int>(row - plane * y.out);
    const int sy = -floor_div32(y.pad - oy * y.down, y.up), sx = -floor_div32(x.pad - ox * x.down, x.up);
    const T* samples = in + plane * y.in * x.in;
    A sum = A(0);
    int iy = sy;
    for (int ky = sy * y.up + y.pad - oy * y.down; ky < y.taps; ky += y.up, ++iy) {
      if (iy < 0 || iy >= y.in) continue;
      const T* from = samples + static_cast<int64_t>(iy) * x.in;
      const A* weights = kernel + static_cast<int64_t>(flip ? y.taps - 1 - ky : ky) * x.taps;
      int ix = sx;
      for (int kx = sx * x.up + x.pad - ox * x.down; kx < x.taps; kx += x.up, ++ix)
        if (ix >= 0 && ix < x.in) sum += weights[flip ? x.taps - 1 - kx : kx] * static_cast<A>(from[ix]);
    }
    out[i] = static_cast<T>(sum);
  }
}

// --- 4 x 4 filters ------------------------------------------------------------------------------------

constexpr int kTaps = 4, kLanes = 32, kRows = 8;  // kLanes x kRows threads

template <int UP, int DOWN>
struct Tile {
  static constexpr int sx = UP, sy = UP == 1 && DOWN == 1 ? 4 : 2;  // outputs of a thread
  static constexpr int width = kLanes * sx, height = kRows * sy;    // of a block
  static constexpr int window_x = ((sx - 1) * DOWN + kTaps - 1) / UP + 1;  // samples of a thread
  static constexpr int window_y = ((sy - 1) * DOWN + kTaps - 1) / UP + 1;
  static constexpr int samples_x = (width - sx) * DOWN / UP + window_x;  // samples of a block
  static constexpr int samples_y = (height - sy) * DOWN / UP + window_y;
};

// First output of the grid of tiles, 0 or just below: o down - pad is a multiple of up there.
template <int UP>
__host__ __device__ __forceinline__ int grid_origin(int pad) {
  return UP == 1 ? 0 : -(pad & 1);  // up is 2, down 1
}

template <typename T, int UP, int DOWN>
__global__ void __launch_bounds__(kLanes* kRows)
    tile_kernel(const T* __restrict__ in, const opmath_t<T>* __restrict__ kernel, Axis32 y, Axis32 x, bool flip,
                int tiles_y, int tiles_x, int64_t tiles, T* __restrict__ out) {
  using A = opmath_t<T>;
  using S = Tile<UP, DOWN>;
  __shared__ A samples[S::samples_y][S::samples_x];
  const int lane = threadIdx.x % kLanes, row = threadIdx.x / kLanes;
  A f[kTaps][kTaps];
#pragma unroll
  for (int i = 0; i < kTaps; ++i)
#pragma unroll
    for (int j = 0; j < kTaps; ++j) f[i][j] = kernel[flip ? kTaps * kTaps - 1 - (i * kTaps + j) : i * kTaps + j];

  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t strip = t / tiles_x, plane = strip / tiles_y;
    const int ox = static_cast<int>(t - strip * tiles_x) * S::width + grid_origin<UP>(x.pad);
    const int oy = static_cast<int>(strip - plane * tiles_y) * S::height + grid_origin<UP>(y.pad);
    const int ix = (ox * DOWN - x.pad) / UP, iy = (oy * DOWN - y.pad) / UP;  // no rest
    const T* from = in + plane * y.in * x.in;
    __syncthreads();  // the tile before has been read
    for (int i = threadIdx.x; i < S::samples_y * S::samples_x; i += kLanes * kRows) {
      const int r = iy + i / S::samples_x, c = ix + i % S::samples_x;
      const bool inside = r >= 0 && r < y.in && c >= 0 && c < x.in;
      samples[i / S::samples_x][i % S::samples_x] =
          inside ? static_cast<A>(from[static_cast<int64_t>(r) * x.in + c]) : A(0);
    }
    __syncthreads();
    A window[S::window_y][S::window_x];
#pragma unroll
    for (int r = 0; r < S::window_y; ++r)
#pragma unroll
      for (int c = 0; c < S::window_x; ++c)
        window[r][c] = samples[row * S::sy * DOWN / UP + r][lane * S::sx * DOWN / UP + c];
    T* to = out + plane * y.out * x.out;
#pragma unroll
    for (int dy = 0; dy < S::sy; ++dy) {
      Pack<T, S::sx> values;
#pragma unroll
      for (int dx = 0; dx < S::sx; ++dx) {
        A sum = A(0);
#pragma unroll
        for (int ky = 0; ky < kTaps; ++ky)
#pragma unroll
          for (int kx = 0; kx < kTaps; ++kx)
            if ((dy * DOWN + ky) % UP == 0 && (dx * DOWN + kx) % UP == 0)
              sum += f[ky][kx] * window[(dy * DOWN + ky) / UP][(dx * DOWN + kx) / UP];
        values.v[dx] = static_cast<T>(sum);
      }
      const int at_y = oy + row * S::sy + dy, at_x = ox + lane * S::sx;
      if (at_y < 0 || at_y >= y.out) continue;
      T* line = to + static_cast<int64_t>(at_y) * x.out;
      // Pairs of outputs are stored at once where they begin at an even address.
      if (S::sx > 1 && x.out % S::sx == 0 && grid_origin<UP>(x.pad) == 0) {
        if (at_x < x.out) *reinterpret_cast<Pack<T, S::sx>*>(line + at_x) = values;
      } else {
#pragma unroll
        for (int dx = 0; dx < S::sx; ++dx)
          if (at_x + dx >= 0 && at_x + dx < x.out) line[at_x + dx] = values.v[dx];
      }
    }
  }
}

template <int UP, int DOWN, typename T>
void launch_tiles(const T* in, const opmath_t<T>* kernel, int64_t planes, const Axis32& y, const Axis32& x, bool flip,
                  T* out, cudaStream_t stream) {
  using S = Tile<UP, DOWN>;
  const int tiles_y = (y.out - grid_origin<UP>(y.pad) + S::height - 1) / S::height;
  const int tiles_x = (x.out - grid_origin<UP>(x.pad) + S::width - 1) / S::width;
  const int64_t tiles = planes * tiles_y * tiles_x;
  const unsigned blocks = static_cast<unsigned>(tiles < (1 << 20) ? tiles : 1 << 20);
  tile_kernel<T, UP, DOWN><<<blocks, kLanes * kRows, 0, stream>>>(in, kernel, y, x, flip, tiles_y, tiles_x, tiles, out);
}

Tensor upfirdn2d_cuda(const Tensor& input, const Tensor& kernel, int64_t up_x, int64_t up_y, int64_t down_x,
                      int64_t down_y, int64_t pad_x0, int64_t pad_x1, int64_t pad_y0, int64_t pad_y1, bool flip) {
  const Params p = check(input, kernel, up_x, up_y, down_x, down_y, pad_x0, pad_x1, pad_y0, pad_y1, flip);
  const CudaScope scope(input);
  const Tensor in = as_contiguous(input), weights = as_contiguous(to_opmath(kernel));
  const Tensor out = empty_beside(in, {in.size(0), in.size(1), p.y.out, p.x.out}, in.scalar_type());
  if (out.numel() == 0) return out;
  const Axis32 y = narrow(p.y), x = narrow(p.x);
  dispatch_float(in.scalar_type(), "upfirdn2d", [&](auto type) {
    using T = typename decltype(type)::type;
    const T* from = in.const_data_ptr<T>();
    const opmath_t<T>* f = weights.const_data_ptr<opmath_t<T>>();
    T* to = out.mutable_data_ptr<T>();
    const bool four = y.taps == kTaps && x.taps == kTaps && y.up == x.up && y.down == x.down;
    if (four && x.up == 1 && x.down == 1)
      launch_tiles<1, 1>(from, f, p.planes, y, x, flip, to, scope.stream);
    else if (four && x.up == 2 && x.down == 1)
      launch_tiles<2, 1>(from, f, p.planes, y, x, flip, to, scope.stream);
    else if (four && x.up == 1 && x.down == 2)
      launch_tiles<1, 2>(from, f, p.planes, y, x, flip, to, scope.stream);
    else
      any_kernel<<<blocks_for(out.numel()), kThreads, 0, scope.stream>>>(from, f, y, x, flip, out.numel(), to);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("upfirdn2d", CV_BOX(&upfirdn2d_cuda)); }

}  // namespace cv::upfirdn2d
