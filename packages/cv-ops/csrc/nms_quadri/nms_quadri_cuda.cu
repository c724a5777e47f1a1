// nms_quadri on CUDA.

#include "../nms/shapes_cuda.cuh"
#include "nms_quadri.h"

namespace cv::nms_quadri {

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("nms_quadri", CV_BOX(&nms::suppress_shapes_cuda<Rule>)); }

}  // namespace cv::nms_quadri
