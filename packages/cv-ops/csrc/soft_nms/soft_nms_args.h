#pragma once
// What the CPU and the CUDA entry of soft_nms share.

#include <optional>

#include "../nms/nms_args.h"
#include "soft_nms.h"

namespace cv::soft_nms {

inline Method check(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups,
                    double iou_threshold, double sigma, int64_t method, int64_t offset) {
  nms::check(boxes, scores, groups);
  nms::check_options(iou_threshold, offset);
  STD_TORCH_CHECK(sigma > 0, "soft_nms: sigma must be positive");
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
