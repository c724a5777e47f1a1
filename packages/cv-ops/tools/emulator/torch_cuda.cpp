// torch's C functions for CUDA, as the kernels' host code calls them. There is one device and one stream. Tensors
// are on the CPU; their memory is filled with 0xFF (NaN) when it is allocated, so that an element which no kernel
// writes shows.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>

#include "torch_cuda.h"

namespace {

void poison(AtenTensorHandle tensor) {
  void* data = nullptr;
  int64_t elements = 0;
  int32_t dtype = 0;
  if (aoti_torch_get_numel(tensor, &elements) || elements == 0 || aoti_torch_get_data_ptr(tensor, &data) ||
      aoti_torch_get_dtype(tensor, &dtype))
    return;
  memset(data, 0xff, static_cast<size_t>(elements) * aoti_torch_dtype_element_size(dtype));
}

}  // namespace

extern "C" {

AOTITorchError simt_get_current_cuda_stream(int32_t, void** stream) {
  *stream = simt::current_stream();
  return AOTI_TORCH_SUCCESS;
}
AOTITorchError simt_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = reinterpret_cast<DeviceGuardHandle>(simt::current_stream());
  return AOTI_TORCH_SUCCESS;
}
AOTITorchError simt_delete_device_guard(DeviceGuardHandle) { return AOTI_TORCH_SUCCESS; }

AOTITorchError simt_cuda_check_msg(int32_t error, const char* file, const char*, uint32_t line, bool, char** message) {
  *message = nullptr;
  if (error == 0) return AOTI_TORCH_SUCCESS;
  char text[256];
  snprintf(text, sizeof text, "emulated CUDA error %d at %s:%u", error, file, line);
  *message = strdup(text);
  return AOTI_TORCH_SUCCESS;
}
void simt_cuda_free_error_msg(char* message) { free(message); }

AOTITorchError simt_empty_strided(int64_t dims, const int64_t* sizes, const int64_t* strides, int32_t dtype,
                                  int32_t device_type, int32_t device_index, AtenTensorHandle* tensor) {
  const AOTITorchError error =
      aoti_torch_empty_strided(dims, sizes, strides, dtype, device_type, device_index, tensor);
  if (error == AOTI_TORCH_SUCCESS) poison(*tensor);
  return error;
}

AOTITorchError simt_call_dispatcher(const char* name, const char* overload, StableIValue* stack, uint64_t version) {
  const AOTITorchError error = torch_call_dispatcher(name, overload, stack, version);
  if (error == AOTI_TORCH_SUCCESS && (strcmp(name, "aten::empty") == 0 || strcmp(name, "aten::new_empty") == 0 ||
                                      strcmp(name, "aten::empty_like") == 0)) {
    AtenTensorHandle tensor;
    memcpy(&tensor, stack, sizeof tensor);
    poison(tensor);
  }
  return error;
}
}
