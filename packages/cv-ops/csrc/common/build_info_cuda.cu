// What the CUDA library was built with, read by Python through ctypes.

#define CV_STRINGIZE_(x) #x
#define CV_STRINGIZE(x) CV_STRINGIZE_(x)

extern "C" {
__attribute__((visibility("default"))) const char* cv_ops_cuda_compiler() {
  return CV_STRINGIZE(__CUDACC_VER_MAJOR__) "." CV_STRINGIZE(__CUDACC_VER_MINOR__);
}
__attribute__((visibility("default"))) const char* cv_ops_cuda_architectures() { return CV_OPS_CUDA_ARCHITECTURES; }
}
