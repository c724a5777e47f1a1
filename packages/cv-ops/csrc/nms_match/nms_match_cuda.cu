// nms_match on CUDA: a thread for each box, which looks through the kept ones in tiles of shared memory.

#include "../common/cuda_utils.cuh"
#include "../nms/nms.h"
#include "nms_match_args.h"

namespace cv::nms_match {
namespace {

Tensor on(const Tensor& t, torch::stable::Device device) {
  return torch::stable::to(t, device);
}

template <typename T, typename A>
__device__ nms::Box<A> load(const T* boxes, int64_t i) {
  const T* b = boxes + 4 * i;
  return nms::make_box(static_cast<A>(b[0]), static_cast<A>(b[1]), static_cast<A>(b[2]), static_cast<A>(b[3]), A(0));
}

template <typename T, typename A>
__global__ void match_kernel(const T* boxes, int64_t n, const int64_t* keep, int64_t k, A threshold, int64_t* group) {
  __shared__ nms::Box<A> tile[kThreads];
  __shared__ int64_t tile_index[kThreads];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const nms::Box<A> box = i < n ? load<T, A>(boxes, i) : nms::Box<A>{};
  int64_t self = k, first = k;
  for (int64_t base = 0; base < k; base += kThreads) {
    __syncthreads();  // the tile before is no longer read
    if (base + threadIdx.x < k) {
      const int64_t index = keep[base + threadIdx.x];
      const bool valid = index >= 0 && index < n;
      tile[threadIdx.x] = valid ? load<T, A>(boxes, index) : nms::Box<A>{};
      tile_index[threadIdx.x] = index;
    }
    __syncthreads();
    const int here = static_cast<int>(min(static_cast<int64_t>(kThreads), k - base));
    for (int c = 0; c < here; ++c) {
      const nms::Box<A>& b = tile[c];
      if (tile_index[c] == i) self = base + c;
      if (first == k && nms::iou_exceeds(box, b.x1, b.y1, b.x2, b.y2, b.area, A(0), threshold)) first = base + c;
    }
  }
  if (i < n) group[i] = self < k ? self : first;
}

// The host must know how large the groups are, so it puts them in order as well. `sizes` stays there.
std::tuple<Tensor, Tensor> nms_match_cuda(const Tensor& boxes, const Tensor& scores, const Tensor& keep,
                                          double iou_threshold) {
  check(boxes, scores, keep);
  const CudaScope scope(boxes);
  const Tensor b = as_contiguous(boxes), k = as_contiguous(keep);
  const int64_t n = b.size(0);
  const Tensor group = empty_beside(b, {n}, ScalarType::Long);
  std::tuple<Tensor, Tensor> result;
  dispatch_float(b.scalar_type(), "nms_match", [&](auto t) {
    using T = typename decltype(t)::type;
    using A = opmath_t<T>;
    if (n > 0) {
      const unsigned blocks = static_cast<unsigned>((n + kThreads - 1) / kThreads);
      match_kernel<T, A><<<blocks, kThreads, 0, scope.stream>>>(b.const_data_ptr<T>(), n, k.const_data_ptr<int64_t>(),
                                                                k.size(0), A(iou_threshold),
                                                                group.mutable_data_ptr<int64_t>());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    const torch::stable::Device host(torch::headeronly::DeviceType::CPU);
    const Tensor groups = on(group, host), s = as_contiguous(on(scores, host));
    result = members_of(groups, s.const_data_ptr<T>(), k.size(0));
    std::get<0>(result) = on(std::get<0>(result), b.device());
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("nms_match", CV_BOX(&nms_match_cuda)); }

}  // namespace cv::nms_match
