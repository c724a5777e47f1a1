// nms_quadri on the CPU, and its schema.

#include "../nms/shapes_cpu.h"
#include "nms_quadri.h"

namespace cv::nms_quadri {

STABLE_TORCH_LIBRARY_FRAGMENT(cv, m) {
  m.def("nms_quadri(Tensor dets, Tensor scores, Tensor? groups, float iou_threshold, float score_threshold, "
        "int max_num) -> (Tensor dets, Tensor keep)");
}
STABLE_TORCH_LIBRARY_IMPL(cv, CPU, m) { m.impl("nms_quadri", CV_BOX(&nms::suppress_shapes_cpu<Rule>)); }

}  // namespace cv::nms_quadri
