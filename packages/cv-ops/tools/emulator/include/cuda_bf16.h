#pragma once
// The kernels take half types from torch/headeronly; nothing of CUDA's own is used.
