#pragma once
// Comes before CUDA's own header where the kernels are emulated.
#include "../simt.h"
