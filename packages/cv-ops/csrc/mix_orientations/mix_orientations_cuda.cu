// mix_orientations on CUDA: a thread takes an element. The result is the same in every run.

#include "../common/cuda_utils.cuh"
#include "mix_orientations_args.h"

namespace cv::mix_orientations {
namespace {

template <typename T, typename index_t>
__global__ void mix_kernel(const T* CV_RESTRICT from, const opmath_t<T>* CV_RESTRICT boxes, Params p, index_t size,
                           index_t count, T* CV_RESTRICT to) {
  using A = opmath_t<T>;
  const auto n = static_cast<index_t>(p.orientations), inner = static_cast<index_t>(p.inner);
  CV_GRID_LOOP(index_t, at, count) {
    const index_t row = at / inner, o = row % n;
    const Turn<A> t = make_turn(boxes + 6 * static_cast<int64_t>(at / size), p);
    const index_t a = o + static_cast<index_t>(t.first), b = o + static_cast<index_t>(t.second);
    const T* feature = from + (at - o * inner);
    to[at] = static_cast<T>(t.weight_first * static_cast<A>(feature[(a < n ? a : a - n) * inner]) +
                            t.weight_second * static_cast<A>(feature[(b < n ? b : b - n) * inner]));
  }
}

Tensor mix_orientations_cuda(const Tensor& input, const Tensor& rois, int64_t orientations, bool clockwise,
                             bool transposed) {
  const Params p = make_params(input, rois, orientations, clockwise, transposed);
  const CudaScope scope(input);
  const Tensor x = dense(input), boxes = region_tensor(rois, input.scalar_type()), out = new_output(x);
  const int64_t count = out.numel();
  if (count == 0) return out;
  dispatch_float(x.scalar_type(), "mix_orientations", [&](auto tag) {
    using T = typename decltype(tag)::type;
    dispatch_index(count, [&](auto index) {
      using index_t = typename decltype(index)::type;
      mix_kernel<T, index_t><<<blocks_for(count), kThreads, 0, scope.stream>>>(
          x.const_data_ptr<T>(), boxes.const_data_ptr<opmath_t<T>>(), p, static_cast<index_t>(count / p.regions),
          static_cast<index_t>(count), out.mutable_data_ptr<T>());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("mix_orientations", CV_BOX(&mix_orientations_cuda)); }

}  // namespace cv::mix_orientations
