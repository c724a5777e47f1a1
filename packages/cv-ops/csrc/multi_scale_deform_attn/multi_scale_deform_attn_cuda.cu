// Multi-scale deformable attention on CUDA.
//
// Forward: one thread makes 16 bytes of channels of one head of one query; the threads of a head read the same
// places, which the cache hands to all of them at once. Sums are in opmath dtype.
//
// Backward: a group of lanes shares one head of one query. Each lane has 16 bytes of channels; dot products are
// added up by shuffles, so gradients of places and weights need no atomics. The gradient of the value is summed by
// atomics in opmath dtype (four at a time where the GPU can), or, if it must be the same in every run, by a kernel
// in which a warp owns a band of keys for 32 channels and adds to it query after query.

#include <cuda/std/limits>
#include <tuple>

#include "../common/cuda_utils.cuh"
#include "multi_scale_deform_attn_args.h"

namespace cv::multi_scale_deform_attn {
namespace {

constexpr int64_t kBand = 64;  // keys of a warp of the ordered kernel

// U: dtype of places and weights
template <typename T, typename U>
struct Inputs {
  Params p;
  const T* value;
  const int64_t *shapes, *starts;
  const U *locations, *weights;

  __device__ __forceinline__ Level level(int64_t l) const { return {starts[l], shapes[2 * l], shapes[2 * l + 1]}; }
};

template <typename T, int V>
__device__ __forceinline__ Pack<T, V> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, V>*>(p);
}

// A sample's place in the keys and its four corners, in the order (y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1).
template <typename A>
struct Sample {
  Tap<A> y, x;
  int64_t key, width;

  __device__ __forceinline__ Sample(A location_x, A location_y, const Level& level)
      : y(make_tap(location_y, static_cast<A>(level.height))),
        x(make_tap(location_x, static_cast<A>(level.width))),
        key(level.start + y.low * level.width + x.low),
        width(level.width) {}

  __device__ __forceinline__ bool inside(int corner) const {
    return (corner & 2 ? y.in_high : y.in_low) * (corner & 1 ? x.in_high : x.in_low) != A(0);
  }
  __device__ __forceinline__ A weight(int corner) const {
    return (corner & 2 ? y.high_weight : y.low_weight) * (corner & 1 ? x.high_weight : x.low_weight);
  }
  __device__ __forceinline__ int64_t key_of(int corner) const {
    return key + (corner & 2 ? width : 0) + (corner & 1);
  }
};

template <int V, typename T, typename U, typename index_t>
__global__ void forward_kernel(index_t count, Inputs<T, U> in, T* CV_RESTRICT out) {
  using A = opmath_t<T>;
  const Params& p = in.p;
  const index_t packs = static_cast<index_t>(p.channels / V), heads = static_cast<index_t>(p.heads);
  const int64_t stride = p.key_stride();
  CV_GRID_LOOP(index_t, i, count) {
    const index_t row = i / packs, query = row / heads;
    const int64_t image = query / static_cast<index_t>(p.queries);
    const T* map = in.value + image * p.keys * stride + static_cast<int64_t>(row - query * heads) * p.channels +
                   static_cast<int64_t>(i - row * packs) * V;
    const U* location = in.locations + static_cast<int64_t>(row) * p.samples() * 2;
    const U* attention = in.weights + static_cast<int64_t>(row) * p.samples();
    A sum[V];
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = A(0);
    for (int64_t l = 0; l < p.levels; ++l) {
      const Level level = in.level(l);
      if (!level.fits(p.keys)) {
#pragma unroll
        for (int v = 0; v < V; ++v) sum[v] = cuda::std::numeric_limits<A>::quiet_NaN();
        break;
      }
      for (int64_t k = 0; k < p.points; ++k, location += 2, ++attention) {
        const Sample<A> s(static_cast<A>(location[0]), static_cast<A>(location[1]), level);
        const A a = static_cast<A>(*attention);
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          const A w = a * s.weight(corner);
          if (w == A(0)) continue;  // outside, or without effect
          const Pack<T, V> pixel = load_pack<T, V>(map + s.key_of(corner) * stride);
#pragma unroll
          for (int v = 0; v < V; ++v) sum[v] += w * static_cast<A>(pixel.v[v]);
        }
      }
    }
    Pack<T, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.v[v] = static_cast<T>(sum[v]);
    *reinterpret_cast<Pack<T, V>*>(out + static_cast<int64_t>(i) * V) = result;
  }
}

// p[v] += w * g[v], atomically
template <int V, typename T, typename A>
__device__ __forceinline__ void atomic_add_pack(A* p, A w, const Pack<T, V>& g) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  constexpr bool four = std::is_same_v<A, float> && V % 4 == 0;
#else
  constexpr bool four = false;
#endif
  if constexpr (four) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#pragma unroll
    for (int v = 0; v < V; v += 4)
      atomicAdd(reinterpret_cast<float4*>(p + v),
                make_float4(w * static_cast<A>(g.v[v]), w * static_cast<A>(g.v[v + 1]), w * static_cast<A>(g.v[v + 2]),
                            w * static_cast<A>(g.v[v + 3])));
#endif
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) atomic_add(p + v, w * static_cast<A>(g.v[v]));
  }
}

// group: lanes per head of a query, a power of two up to 32. grad_value, or grad_locations and grad_weights, may be
// null.
template <int V, typename T, typename U>
__global__ void backward_kernel(int group, Inputs<T, U> in, const T* CV_RESTRICT grad, opmath_t<T>* grad_value,
                                U* CV_RESTRICT grad_locations, U* CV_RESTRICT grad_weights) {
  using A = opmath_t<T>;
  const Params& p = in.p;
  const int warp_lane = threadIdx.x % 32, lane = warp_lane & (group - 1);
  const unsigned lanes = group == 32 ? 0xffffffffu : ((1u << group) - 1u) << (warp_lane - lane);
  const int64_t stride = p.key_stride(), packs = p.channels / V;
  const int64_t groups = static_cast<int64_t>(gridDim.x) * (blockDim.x / group);
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * (blockDim.x / group) + threadIdx.x / group; row < p.rows();
       row += groups) {
    const int64_t map = row / (p.queries * p.heads) * p.keys * stride + row % p.heads * p.channels;
    const T* g = grad + row * p.channels;
    Pack<T, V> first;
    if (lane < packs) first = load_pack<T, V>(g + lane * V);
    int64_t sample = row * p.samples();
    for (int64_t l = 0; l < p.levels; ++l) {
      const Level level = in.level(l);
      const bool fits = level.fits(p.keys);
      for (int64_t k = 0; k < p.points; ++k, ++sample) {
        const Sample<A> s(static_cast<A>(in.locations[2 * sample]), static_cast<A>(in.locations[2 * sample + 1]),
                          level);
        const A a = static_cast<A>(in.weights[sample]);
        A d[4] = {A(0), A(0), A(0), A(0)};
        if (fits) {
          for (int64_t c = lane; c < packs; c += group) {
            const Pack<T, V> here = c == lane ? first : load_pack<T, V>(g + c * V);
#pragma unroll
            for (int corner = 0; corner < 4; ++corner) {
              if (!s.inside(corner)) continue;
              const int64_t at = map + s.key_of(corner) * stride + c * V;
              if (grad_weights) {
                const Pack<T, V> pixel = load_pack<T, V>(in.value + at);
#pragma unroll
                for (int v = 0; v < V; ++v) d[corner] += static_cast<A>(here.v[v]) * static_cast<A>(pixel.v[v]);
              }
              if (grad_value) {
                const A w = a * s.weight(corner);
                if (w != A(0)) atomic_add_pack<V>(grad_value + at, w, here);
              }
            }
          }
        }
        if (grad_weights) {
          SampleGrad<A> result =
              sample_grad(s.y, s.x, a, static_cast<A>(level.height), static_cast<A>(level.width), d);
          for (int offset = group / 2; offset > 0; offset /= 2) {
            result.weight += __shfl_xor_sync(lanes, result.weight, offset);
            result.x += __shfl_xor_sync(lanes, result.x, offset);
            result.y += __shfl_xor_sync(lanes, result.y, offset);
          }
          if (lane == 0) {
            const A nan = cuda::std::numeric_limits<A>::quiet_NaN();
            grad_weights[sample] = static_cast<U>(fits ? result.weight : nan);
            grad_locations[2 * sample] = static_cast<U>(fits ? result.x : nan);
            grad_locations[2 * sample + 1] = static_cast<U>(fits ? result.y : nan);
          }
        }
      }
    }
  }
}

// A warp has kBand keys and 32 channels of one head of one image. Its lanes look at 32 samples at a time; those that
// touch the band are then added one after the other, in the order of queries, levels and points.
template <typename T, typename U>
__global__ void ordered_backward_kernel(Inputs<T, U> in, const T* CV_RESTRICT grad, opmath_t<T>* grad_value) {
  using A = opmath_t<T>;
  const Params& p = in.p;
  const int lane = threadIdx.x % 32;
  const int64_t bands = (p.keys + kBand - 1) / kBand, slabs = (p.channels + 31) / 32, stride = p.key_stride();
  const int64_t tasks = p.batch * p.heads * slabs * bands, warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32);
  const int64_t all = p.queries * p.samples();
  for (int64_t task = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; task < tasks;
       task += warps) {
    const int64_t low = task % bands * kBand, high = low + kBand;
    const int64_t channel = task / bands % slabs * 32 + lane;
    const int64_t head = task / bands / slabs % p.heads, image = task / bands / slabs / p.heads;
    A* to = grad_value + image * p.keys * stride + head * p.channels + channel;
    for (int64_t begin = 0; begin < all; begin += 32) {
      const int64_t mine = begin + lane;
      int64_t key = 0, width = 0;
      A weight[4] = {A(0), A(0), A(0), A(0)};
      bool touches = false;
      if (mine < all) {
        const int64_t query = mine / p.samples(), sample = mine - query * p.samples();
        const Level level = in.level(sample / p.points);
        const int64_t at = ((image * p.queries + query) * p.heads + head) * p.samples() + sample;
        const Sample<A> s(static_cast<A>(in.locations[2 * at]), static_cast<A>(in.locations[2 * at + 1]), level);
        key = s.key, width = s.width;
        if (level.fits(p.keys)) {
          const A a = static_cast<A>(in.weights[at]);
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            const int64_t k = s.key_of(corner);
            weight[corner] = k >= low && k < high && s.inside(corner) ? a * s.weight(corner) : A(0);
            touches = touches || weight[corner] != A(0);
          }
        }
      }
      for (unsigned hits = __ballot_sync(0xffffffffu, touches); hits != 0; hits &= hits - 1) {
        const int source = __ffs(static_cast<int>(hits)) - 1;
        const int64_t hit_key = __shfl_sync(0xffffffffu, key, source);
        const int64_t hit_width = __shfl_sync(0xffffffffu, width, source);
        A w[4];
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) w[corner] = __shfl_sync(0xffffffffu, weight[corner], source);
        if (channel < p.channels) {
          const int64_t query = (begin + source) / p.samples();
          const A g = static_cast<A>(grad[((image * p.queries + query) * p.heads + head) * p.channels + channel]);
#pragma unroll
          for (int corner = 0; corner < 4; ++corner)
            if (w[corner] != A(0))
              to[(hit_key + (corner & 2 ? hit_width : 0) + (corner & 1)) * stride] += w[corner] * g;
        }
      }
    }
  }
}

// f(value's dtype, dtype of places and weights): those are read as they are where both have the value's dtype or its
// opmath dtype, else converted to the latter.
template <typename F>
void dispatch_types(const Tensor& value, const Tensor& locations, const Tensor& weights, F&& f) {
  const bool same = locations.scalar_type() == value.scalar_type() && weights.scalar_type() == value.scalar_type();
  dispatch_float(value.scalar_type(), "multi_scale_deform_attn", [&](auto t) {
    using T = typename decltype(t)::type;
    if constexpr (std::is_same_v<T, opmath_t<T>>) {
      f(t, t);
    } else {
      if (same)
        f(t, t);
      else
        f(t, tag<opmath_t<T>>{});
    }
  });
}

ScalarType sample_dtype(const Tensor& value, const Tensor& locations, const Tensor& weights) {
  const ScalarType v = value.scalar_type();
  return locations.scalar_type() == v && weights.scalar_type() == v ? v : opmath_dtype(v);
}

// f(integral_constant V): channels that a thread moves at once
template <typename T, typename F>
void dispatch_pack(const Params& p, const T* a, const T* b, F&& f) {
  constexpr int wide = 16 / sizeof(T);
  if (p.channels % wide == 0 && aligned_to(a, 16) && aligned_to(b, 16))
    f(std::integral_constant<int, wide>{});
  else
    f(std::integral_constant<int, 1>{});
}

// The inputs as the kernels read them; holds what had to be copied.
struct Prepared {
  Params p;
  Tensor value, shapes, starts, locations, weights;

  Prepared(const Tensor& v, const Tensor& sh, const Tensor& st, const Tensor& l, const Tensor& w)
      : p(make_params(v, sh, st, l, w)),
        value(as_contiguous(v)),
        shapes(as_contiguous(sh)),
        starts(as_contiguous(st)),
        locations(as_contiguous(to_dtype(l, sample_dtype(v, l, w)))),
        weights(as_contiguous(to_dtype(w, sample_dtype(v, l, w)))) {}

  template <typename T, typename U>
  Inputs<T, U> inputs() const {
    return {p,
            value.const_data_ptr<T>(),
            shapes.const_data_ptr<int64_t>(),
            starts.const_data_ptr<int64_t>(),
            locations.const_data_ptr<U>(),
            weights.const_data_ptr<U>()};
  }
};

Tensor forward_cuda(const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations,
                    const Tensor& weights) {
  const CudaScope scope(value);
  const Prepared in(value, shapes, starts, locations, weights);
  Tensor out = empty_beside(value, {in.p.batch, in.p.queries, in.p.key_stride()}, value.scalar_type());
  if (out.numel() == 0) return out;
  if (in.p.samples() == 0) return zero_(out);
  dispatch_types(value, locations, weights, [&](auto t, auto u) {
    using T = typename decltype(t)::type;
    using U = typename decltype(u)::type;
    const Inputs<T, U> inputs = in.inputs<T, U>();
    T* to = out.mutable_data_ptr<T>();
    dispatch_pack(in.p, inputs.value, to, [&](auto width) {
      constexpr int V = decltype(width)::value;
      const int64_t count = out.numel() / V;
      dispatch_index(count, [&](auto i) {
        using index_t = typename decltype(i)::type;
        forward_kernel<V, T, U, index_t>
            <<<blocks_for(count), kThreads, 0, scope.stream>>>(static_cast<index_t>(count), inputs, to);
      });
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

template <int V, typename T, typename U>
void launch_backward(const Inputs<T, U>& in, const T* grad, opmath_t<T>* grad_value, U* grad_locations, U* grad_weights,
                     cudaStream_t stream) {
  const int64_t packs = in.p.channels / V;
  int group = 1;
  while (group < 32 && group < packs) group *= 2;
  const unsigned blocks = blocks_for(in.p.rows() * group);
  backward_kernel<V><<<blocks, kThreads, 0, stream>>>(group, in, grad, grad_value, grad_locations, grad_weights);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor, Tensor> backward_cuda(const Tensor& grad, const Tensor& value, const Tensor& shapes,
                                                 const Tensor& starts, const Tensor& locations, const Tensor& weights,
                                                 bool want_value, bool want_samples, bool deterministic) {
  const CudaScope scope(value);
  const Prepared in(value, shapes, starts, locations, weights);
  check_grad(grad, value, in.p);
  STD_TORCH_CHECK(on_same_device(grad, value), "multi_scale_deform_attn_backward: grad must be on the device of value");
  const Tensor g = as_contiguous(grad);
  const auto zeros_like = [&](const Tensor& t, bool wanted, ScalarType dtype) {
    return wanted ? Tensor(torch::stable::new_zeros(t, t.sizes(), dtype)) : empty_beside(t, {0}, dtype);
  };
  const Tensor grad_value = zeros_like(value, want_value, opmath_dtype(value.scalar_type()));
  const Tensor grad_locations = zeros_like(locations, want_samples, in.locations.scalar_type());
  const Tensor grad_weights = zeros_like(weights, want_samples, in.weights.scalar_type());
  if (in.p.rows() > 0 && in.p.channels > 0 && in.p.samples() > 0) {
    dispatch_types(value, locations, weights, [&](auto t, auto u) {
      using T = typename decltype(t)::type;
      using U = typename decltype(u)::type;
      using A = opmath_t<T>;
      const Inputs<T, U> inputs = in.inputs<T, U>();
      const T* from = g.const_data_ptr<T>();
      A* to_value = want_value && in.p.keys > 0 ? grad_value.mutable_data_ptr<A>() : nullptr;
      U* to_locations = want_samples ? grad_locations.mutable_data_ptr<U>() : nullptr;
      U* to_weights = want_samples ? grad_weights.mutable_data_ptr<U>() : nullptr;
      if (deterministic && to_value) {
        const int64_t warps = in.p.batch * in.p.heads * ((in.p.channels + 31) / 32) * ((in.p.keys + kBand - 1) / kBand);
        ordered_backward_kernel<<<blocks_for(warps * 32), kThreads, 0, scope.stream>>>(inputs, from, to_value);
        STD_CUDA_KERNEL_LAUNCH_CHECK();
        to_value = nullptr;
      }
      if (to_value || to_weights) {
        dispatch_pack(in.p, inputs.value, from, [&](auto width) {
          launch_backward<decltype(width)::value>(inputs, from, to_value, to_locations, to_weights, scope.stream);
        });
      }
    });
  }
  return {to_dtype(grad_value, value.scalar_type()), to_dtype(grad_locations, locations.scalar_type()),
          to_dtype(grad_weights, weights.scalar_type())};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) {
  m.impl("multi_scale_deform_attn", CV_BOX(&forward_cuda));
  m.impl("multi_scale_deform_attn_backward", CV_BOX(&backward_cuda));
}

}  // namespace cv::multi_scale_deform_attn
