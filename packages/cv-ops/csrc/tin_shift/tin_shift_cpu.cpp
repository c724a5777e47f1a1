// tin_shift on the CPU, and its schema: chunks are copied whole, at the speed of memory.

#include <algorithm>
#include <cstring>

#include "tin_shift.h"
#include "tin_shift_args.h"

namespace cv::tin_shift {
namespace {

Tensor tin_shift_cpu(const Tensor& input, const Tensor& shift, bool back) {
  const Geometry g = geometry_of(input, shift);
  const Tensor x = as_contiguous(input), s = as_contiguous(shift), out = empty_output(x);
  if (out.numel() == 0) return out;
  const int64_t size = element_size(x);
  STD_TORCH_CHECK(size > 0, "tin_shift is not implemented for ", torch::headeronly::toString(x.scalar_type()));
  const int64_t bytes = g.chunk * size, per_sample = g.times * g.groups;
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(out.mutable_data_ptr());
  const int64_t* shifts = s.const_data_ptr<int64_t>();
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / bytes);
  torch::stable::parallel_for(0, g.n * per_sample, grain, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t n = chunk / per_sample, t = chunk % per_sample / g.groups, group = chunk % g.groups;
      const int64_t source = source_time(t, shifts[n * g.groups + group], back, g.times);
      if (source < 0) {
        std::memset(to + chunk * bytes, 0, bytes);
      } else {
        std::memcpy(to + chunk * bytes, from + ((n * g.times + source) * g.groups + group) * bytes, bytes);
      }
    }
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) { m.def("tin_shift(Tensor input, Tensor shift, bool back) -> Tensor"); }
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("tin_shift", CV_BOX(&tin_shift_cpu)); }

}  // namespace cv::tin_shift
