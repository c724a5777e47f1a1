// nms_rotated on CUDA.

#include "../nms/shapes_cuda.cuh"
#include "nms_rotated.h"

namespace cv::nms_rotated {

STABLE_TORCH_LIBRARY_IMPL(cv, CUDA, m) { m.impl("nms_rotated", CV_BOX(&nms::suppress_shapes_cuda<Rule>)); }

}  // namespace cv::nms_rotated
