// Deformable convolution on CUDA: the driver of deform_conv_chunks.cuh with kernels for its steps.
//
// The input is read as (N, H, W, C): neighbouring threads take neighbouring channels of one sample, so all
// loads and stores are coalesced whatever the offsets are, in packs of 16 bytes where the channels allow it.
// The products are cuBLAS's, through torch: half types run on tensor cores and accumulate in float32.
//
// grad_input is summed by atomics (float32 for half types), which is not deterministic. The deterministic
// kernel gives each row of the map to one warp per 32 channels, which adds in a fixed order.

#include <tuple>

#include "../common/cuda_utils.cuh"
#include "deform_conv_chunks.cuh"
#include "deform_conv_columns.h"

namespace cv::deform_conv {
namespace {

constexpr int64_t kColumnBytes = 64 << 20;

// Pointers as in Inputs.
template <typename T>
struct DeviceProblem {
  using A = opmath_t<T>;
  Geometry g;
  const T* input;
  const A* offset;
  const A* mask;  // null: all ones
};

// Sample `tap` of deformable group `dg` for an output pixel numbered through the batch.
template <typename T>
__device__ __forceinline__ Sample<opmath_t<T>> sample_at(const DeviceProblem<T>& p, int64_t b, int64_t pixel, int dg,
                                                         int tap) {
  const Geometry& g = p.g;
  const int width = static_cast<int>(g.out_w), at = static_cast<int>(pixel), kernel_w = static_cast<int>(g.kernel_w);
  const int oh = at / width, ow = at % width, kh = tap / kernel_w, kw = tap % kernel_w;
  const auto* offset = p.offset + g.offset_index(b, dg, tap, pixel);
  return locate(oh * g.stride_h - g.pad_h + kh * g.dilation_h, ow * g.stride_w - g.pad_w + kw * g.dilation_w,
                offset[0], offset[g.out_plane()], g.height, g.width);
}

template <typename T>
__device__ __forceinline__ opmath_t<T> mask_at(const DeviceProblem<T>& p, int64_t b, int64_t pixel, int dg, int tap) {
  return p.mask ? p.mask[p.g.mask_index(b, dg, tap, pixel)] : opmath_t<T>(1);
}

template <typename T, int N>
__device__ __forceinline__ Pack<T, N> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, N>*>(p);
}

// columns = samples of output pixels [first, first + pixels); one thread per pixel, tap and N channels.
template <typename T, int N, typename index_t>
__global__ void sample_kernel(DeviceProblem<T> p, int64_t first, index_t count, ColumnLayout layout,
                              T* CV_RESTRICT columns) {
  using A = opmath_t<T>;
  const Geometry& g = p.g;
  const index_t packs = static_cast<index_t>(g.channels / N), taps = static_cast<index_t>(g.taps());
  CV_GRID_LOOP(index_t, i, count) {
    const int64_t c = static_cast<int64_t>(i % packs) * N;
    const int tap = static_cast<int>(i / packs % taps);
    const int64_t chunk_pixel = i / packs / taps, at = first + chunk_pixel;
    const int64_t b = at / g.out_plane(), pixel = at % g.out_plane();
    const int dg = static_cast<int>(c / g.deform_channels());
    const Sample<A> s = sample_at(p, b, pixel, dg, tap);
    const A mask = mask_at(p, b, pixel, dg, tap);
    const T* image = p.input + b * g.height * g.width * g.channels + c;
    A sum[N];
#pragma unroll
    for (int n = 0; n < N; ++n) sum[n] = A(0);
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      if (s.corners >> corner & 1) {
        const A w = mask * s.weight(corner);
        const Pack<T, N> v = load_pack<T, N>(image + s.neighbour(corner, g.width) * g.channels);
#pragma unroll
        for (int n = 0; n < N; ++n) sum[n] += w * static_cast<A>(v.v[n]);
      }
    }
    Pack<T, N> out;
#pragma unroll
    for (int n = 0; n < N; ++n) out.v[n] = static_cast<T>(sum[n]);
    *reinterpret_cast<Pack<T, N>*>(columns + layout.index(chunk_pixel, tap, c)) = out;
  }
}

// Gradients of one sample per warp, its lanes over channels: dot products for offset and mask, and, unless
// `scatter` is false, the sum into grad_input by atomics.
template <typename T, int N>
__global__ void gradient_kernel(DeviceProblem<T> p, int64_t first, int64_t samples, ColumnLayout layout,
                                const T* CV_RESTRICT grad_columns, Gradients<opmath_t<T>> grads, bool scatter) {
  using A = opmath_t<T>;
  const Geometry& g = p.g;
  const int lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; i < samples; i += warps) {
    const int tap = static_cast<int>(i % g.taps());
    const int dg = static_cast<int>(i / g.taps() % g.deform_groups);
    const int64_t chunk_pixel = i / g.taps() / g.deform_groups, at = first + chunk_pixel;
    const int64_t b = at / g.out_plane(), pixel = at % g.out_plane();
    const Sample<A> s = sample_at(p, b, pixel, dg, tap);
    const A mask = mask_at(p, b, pixel, dg, tap);
    const int64_t image = b * g.height * g.width * g.channels;
    A d[4] = {A(0), A(0), A(0), A(0)};
    if (s.corners != 0) {
      for (int64_t k = static_cast<int64_t>(lane) * N; k < g.deform_channels(); k += 32 * N) {
        const int64_t c = dg * g.deform_channels() + k;
        const Pack<T, N> grad = load_pack<T, N>(grad_columns + layout.index(chunk_pixel, tap, c));
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          if (s.corners >> corner & 1) {
            const int64_t to = image + s.neighbour(corner, g.width) * g.channels + c;
            const Pack<T, N> v = load_pack<T, N>(p.input + to);
            const A w = mask * s.weight(corner);
#pragma unroll
            for (int n = 0; n < N; ++n) {
              const A gradient = static_cast<A>(grad.v[n]);
              d[corner] += gradient * static_cast<A>(v.v[n]);
              if (scatter) atomic_add(grads.input + to + n, w * gradient);
            }
          }
        }
      }
    }
    if (grads.offset) {
#pragma unroll
      for (int corner = 0; corner < 4; ++corner) d[corner] = warp_sum(d[corner]);
      if (lane == 0) {
        const SampleGrad<A> grad = sample_grad(s, mask, d);
        A* offset = grads.offset + g.offset_index(b, dg, tap, pixel);
        offset[0] = grad.offset_y;
        offset[g.out_plane()] = grad.offset_x;
        if (grads.mask) grads.mask[g.mask_index(b, dg, tap, pixel)] = grad.mask;
      }
    }
  }
}

// The same sum into grad_input without atomics. A warp owns 32 channels of one row of the map: it looks at 32
// samples at a time and adds those that touch its row, one after the other.
template <typename T>
__global__ void ordered_scatter_kernel(DeviceProblem<T> p, int64_t first, int64_t pixels, ColumnLayout layout,
                                       const T* CV_RESTRICT grad_columns, opmath_t<T>* grad_input) {
  using A = opmath_t<T>;
  const Geometry& g = p.g;
  const int lane = threadIdx.x % 32;
  const int64_t slabs_per_group = (g.deform_channels() + 31) / 32, slabs = slabs_per_group * g.deform_groups;
  const int64_t first_image = first / g.out_plane(), images = (first + pixels - 1) / g.out_plane() - first_image + 1;
  const int64_t tasks = images * g.height * slabs;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; task < tasks;
       task += warps) {
    const int64_t slab = task % slabs, row = task / slabs % g.height, b = first_image + task / slabs / g.height;
    const int dg = static_cast<int>(slab / slabs_per_group);
    const int64_t k = slab % slabs_per_group * 32 + lane, c = dg * g.deform_channels() + k;
    const bool has_channel = k < g.deform_channels();
    const int64_t begin = max(first, b * g.out_plane()), end = min(first + pixels, (b + 1) * g.out_plane());
    A* to_row = grad_input + (b * g.height + row) * g.width * g.channels + c;
    for (int tap = 0; tap < g.taps(); ++tap) {
      for (int64_t base = begin; base < end; base += 32) {
        Sample<A> s{0, 0, 0, A(0), A(0)};
        A mask = A(0);
        if (base + lane < end) {
          const int64_t pixel = base + lane - b * g.out_plane();
          s = sample_at(p, b, pixel, dg, tap);
          mask = mask_at(p, b, pixel, dg, tap);
        }
        uint32_t mine = 0;  // corners of this lane's sample in the warp's row
        if (s.row == row) mine = s.corners & (kTopLeft | kTopRight);
        if (s.row + 1 == row) mine = s.corners & (kBottomLeft | kBottomRight);
        for (uint32_t todo = __ballot_sync(0xffffffffu, mine != 0); todo != 0; todo &= todo - 1) {
          const int from = __ffs(todo) - 1;
          const uint32_t corners = __shfl_sync(0xffffffffu, mine, from);
          const Sample<A> t{__shfl_sync(0xffffffffu, s.row, from), __shfl_sync(0xffffffffu, s.col, from), corners,
                            __shfl_sync(0xffffffffu, s.ly, from), __shfl_sync(0xffffffffu, s.lx, from)};
          const A m = __shfl_sync(0xffffffffu, mask, from);
          if (!has_channel) continue;
          const A grad = m * static_cast<A>(grad_columns[layout.index(base + from - first, tap, c)]);
          for (int corner = 0; corner < 4; ++corner)
            if (corners >> corner & 1)
              to_row[(static_cast<int64_t>(t.col) + (corner & 1)) * g.channels] += t.weight(corner) * grad;
        }
      }
    }
  }
}

template <typename T, typename A>
__global__ void accumulate_kernel(A* CV_RESTRICT sum, const T* CV_RESTRICT part, int64_t n) {
  CV_GRID_LOOP(int64_t, i, n) sum[i] += static_cast<A>(part[i]);
}

// inner: elements between two values of the channel (1: channels last, a plane: channels first)
template <typename T>
__global__ void add_bias_kernel(T* CV_RESTRICT out, const T* CV_RESTRICT bias, int64_t n, int64_t inner,
                                int64_t channels) {
  using A = opmath_t<T>;
  CV_GRID_LOOP(int64_t, i, n) {
    out[i] = static_cast<T>(static_cast<A>(out[i]) + static_cast<A>(bias[i / inner % channels]));
  }
}

template <typename T>
struct CudaBackend {
  using scalar_t = T;
  using A = opmath_t<T>;
  static constexpr int kPack = 16 / sizeof(T);

  DeviceProblem<T> p;
  cudaStream_t stream;
  bool wide;  // whether runs of channels may be read kPack at a time
  bool deterministic;

  CudaBackend(const Inputs& in, const Geometry& g, cudaStream_t s, bool ordered)
      : p{g, in.input.const_data_ptr<T>(), in.offset.const_data_ptr<A>(),
          in.mask ? in.mask->const_data_ptr<A>() : nullptr},
        stream(s),
        wide(g.deform_channels() % kPack == 0 && g.group_channels() % kPack == 0 && aligned_to(p.input, 16)),
        deterministic(ordered) {}

  int64_t chunk_bytes() const { return kColumnBytes; }

  void sample(int64_t first, int64_t pixels, const ColumnLayout& layout, T* columns) const {
    const int64_t count = pixels * p.g.taps() * p.g.channels / (wide ? kPack : 1);
    dispatch_index(count, [&](auto tag) {
      using index_t = typename decltype(tag)::type;
      const auto n = static_cast<index_t>(count);
      if (wide)
        sample_kernel<T, kPack><<<blocks_for(count), kThreads, 0, stream>>>(p, first, n, layout, columns);
      else
        sample_kernel<T, 1><<<blocks_for(count), kThreads, 0, stream>>>(p, first, n, layout, columns);
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  void gradients(int64_t first, int64_t pixels, const ColumnLayout& layout, const T* grad_columns,
                 const Gradients<A>& grads) const {
    const int64_t samples = pixels * p.g.taps() * p.g.deform_groups;
    const bool scatter = grads.input && !deterministic;
    if (scatter || grads.offset) {
      const unsigned blocks = blocks_for(samples * 32);
      if (wide)
        gradient_kernel<T, kPack>
            <<<blocks, kThreads, 0, stream>>>(p, first, samples, layout, grad_columns, grads, scatter);
      else
        gradient_kernel<T, 1>
            <<<blocks, kThreads, 0, stream>>>(p, first, samples, layout, grad_columns, grads, scatter);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    if (grads.input && deterministic) {
      const int64_t images = (first + pixels - 1) / p.g.out_plane() - first / p.g.out_plane() + 1;
      const int64_t slabs = (p.g.deform_channels() + 31) / 32 * p.g.deform_groups;
      ordered_scatter_kernel<T><<<blocks_for(images * p.g.height * slabs * 32), kThreads, 0, stream>>>(
          p, first, pixels, layout, grad_columns, grads.input);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
  }

  void accumulate(A* sum, const T* part, int64_t n) const {
    accumulate_kernel<<<blocks_for(n), kThreads, 0, stream>>>(sum, part, n);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

Tensor deform_conv2d_cuda(const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask,
                          const Tensor& weight, const std::optional<Tensor>& bias, int64_t stride_h, int64_t stride_w,
                          int64_t pad_h, int64_t pad_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                          int64_t deform_groups) {
  const Geometry g = make_geometry(input, offset, mask, weight, stride_h, stride_w, pad_h, pad_w, dilation_h,
                                   dilation_w, groups, deform_groups);
  check_output(input, bias, g);
  CudaScope scope(input);
  const ScalarType dtype = input.scalar_type();
  const bool nhwc = is_channels_last(input);
  Tensor out = empty_4d(input, g.batch, g.out_channels, g.out_h, g.out_w, dtype, nhwc);
  dispatch_float(dtype, "deform_conv2d", [&](auto t) {
    using T = typename decltype(t)::type;
    T* data = out.mutable_data_ptr<T>();
    if (is_empty(g)) {
      zero_(out);
    } else {
      const Inputs in(input, offset, mask, weight, dtype);
      const CudaBackend<T> backend(in, g, scope.stream, false);
      Driver(backend, in, g).forward(data, nhwc);
    }
    if (bias && out.numel() > 0) {
      const Tensor b = as_contiguous(to_dtype(*bias, dtype));
      add_bias_kernel<<<blocks_for(out.numel()), kThreads, 0, scope.stream>>>(
          data, b.const_data_ptr<T>(), out.numel(), nhwc ? 1 : g.out_plane(), g.out_channels);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> deform_conv2d_backward_cuda(
    const Tensor& grad, const Tensor& input, const Tensor& offset, const std::optional<Tensor>& mask,
    const Tensor& weight, int64_t stride_h, int64_t stride_w, int64_t pad_h, int64_t pad_w, int64_t dilation_h,
    int64_t dilation_w, int64_t groups, int64_t deform_groups, bool want_input, bool want_offset, bool want_weight,
    bool deterministic) {
  const Geometry g = make_geometry(input, offset, mask, weight, stride_h, stride_w, pad_h, pad_w, dilation_h,
                                   dilation_w, groups, deform_groups);
  check_grad(grad, input, g);
  CudaScope scope(input);
  const GradientTensors grads(g, input, offset, mask, want_input, want_offset, want_weight);
  if (!is_empty(g)) {
    const ScalarType dtype = input.scalar_type();
    const bool nhwc = is_channels_last(grad);
    const Tensor grad_out = nhwc ? to_dtype(grad, dtype) : as_contiguous(to_dtype(grad, dtype));
    dispatch_float(dtype, "deform_conv2d_backward", [&](auto t) {
      using T = typename decltype(t)::type;
      const Inputs in(input, offset, mask, weight, dtype);
      const CudaBackend<T> backend(in, g, scope.stream, deterministic);
      Driver(backend, in, g).backward(grad_out.const_data_ptr<T>(), nhwc, grads.pointers<opmath_t<T>>());
    });
  }
  return grads.finish(input, offset, mask, weight);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("deform_conv2d", CV_BOX(&deform_conv2d_cuda));
  m.impl("deform_conv2d_backward", CV_BOX(&deform_conv2d_backward_cuda));
}

}  // namespace cv::deform_conv
