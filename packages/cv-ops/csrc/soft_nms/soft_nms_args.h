#pragma once
// What the CPU and the CUDA entry of soft_nms share.

#include <optional>

#include "../nms/nms_args.h"
#include "soft_nms.h"

namespace cv::soft_nms {

inline Method check(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups, int64_t method) {
  nms::check(boxes, scores, groups);
  STD_TORCH_CHECK(method >= 0 && method <= 2, "soft_nms: method must be 0 (naive), 1 (linear) or 2 (gaussian)");
  return static_cast<Method>(method);
}

// f(std::integral_constant<Method, ...>) for the method in hand.
template <typename F>
inline void dispatch_method(Method method, F&& f) {
  switch (method) {
    case Method::naive: return f(std::integral_constant<Method, Method::naive>{});
    case Method::linear: return f(std::integral_constant<Method, Method::linear>{});
    case Method::gaussian: return f(std::integral_constant<Method, Method::gaussian>{});
  }
}

}  // namespace cv::soft_nms
