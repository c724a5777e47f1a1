// The instruction-set switch of isa.h, and what this library was built with: C functions that Python
// reads through ctypes, and so that they need no tensor.

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "isa.h"

#define CV_STRINGIZE_(x) #x
#define CV_STRINGIZE(x) CV_STRINGIZE_(x)

namespace cv {

Isa best_cpu_isa() {
#ifdef CV_HAS_ISA_VARIANTS
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::baseline;
#else
  return Isa::baseline;
#endif
}

namespace {

// CV_OPS_CPU_ISA can only lower the choice: a name the machine lacks must not crash it.
Isa initial_isa() {
  const Isa best = best_cpu_isa();
  const char* wanted = std::getenv("CV_OPS_CPU_ISA");
  if (wanted == nullptr) return best;
  if (std::strcmp(wanted, "baseline") == 0) return Isa::baseline;
  if (std::strcmp(wanted, "avx2") == 0 && best >= Isa::avx2) return Isa::avx2;
  return best;
}

std::atomic<Isa>& chosen_isa() {
  static std::atomic<Isa> isa{initial_isa()};
  return isa;
}

}  // namespace

Isa cpu_isa() { return chosen_isa().load(std::memory_order_relaxed); }

bool force_cpu_isa(int level) {
  const int best = static_cast<int>(best_cpu_isa());
  if (level > best) return false;
  chosen_isa().store(static_cast<Isa>(level < 0 ? best : level), std::memory_order_relaxed);
  return true;
}

}  // namespace cv

extern "C" {
__attribute__((visibility("default"))) int cv_ops_cpu_isa() { return static_cast<int>(cv::cpu_isa()); }
__attribute__((visibility("default"))) int cv_ops_best_cpu_isa() { return static_cast<int>(cv::best_cpu_isa()); }
__attribute__((visibility("default"))) int cv_ops_force_cpu_isa(int level) { return cv::force_cpu_isa(level) ? 1 : 0; }
__attribute__((visibility("default"))) const char* cv_ops_compiler() {
#if defined(__clang__)
  return "Clang " CV_STRINGIZE(__clang_major__) "." CV_STRINGIZE(__clang_minor__);
#elif defined(__GNUC__)
  return "GCC " CV_STRINGIZE(__GNUC__) "." CV_STRINGIZE(__GNUC_MINOR__);
#else
  return "unknown";
#endif
}
__attribute__((visibility("default"))) const char* cv_ops_torch_target() { return CV_OPS_TORCH_TARGET_TEXT; }
}
