#pragma once
// Run-time choice of the instruction set for CPU hot loops; the binary itself stays baseline x86-64.
//
//   inline void axpy(float a, const float* x, float* y, int64_t begin, int64_t end) { ... a plain loop ... }
//
//   parallel_for(0, n, grain, [&](int64_t b, int64_t e) { vectorized([&] { axpy(a, x, y, b, e); }); });
//
// vectorized() has one copy of its body per instruction set, each compiled with that set and with
// everything it calls inlined into it (`flatten`), so plain loops and header formulas vectorise to the
// width of the machine. Why not target_clones: it needs ifunc (glibc only), does not reach into
// lambdas, and cannot be forced in a test. Why not one file per instruction set with -mavx512f: the
// linker may keep the AVX-512 copy of a shared template, which then crashes an older machine.
//
// Rules: put the loop into an inline function that takes everything by value, as above; a loop directly in
// the lambda reads its captures through a pointer that its stores may alias, and is then not vectorised.
// The body must not contain what is hot and cannot be inlined. Call vectorized() outside the inner loops:
// it costs a branch and a call. Floating-point results may
// differ in the last bits between the variants (FMA), never more.
//
// Tests force a variant with cv.ops._load.forced_cpu_isa("avx2"), users with CV_OPS_CPU_ISA.

#include <utility>

namespace cv {

enum class Isa : int { baseline = 0, avx2 = 1, avx512 = 2 };

Isa cpu_isa();              // what vectorized() uses now
Isa best_cpu_isa();         // the best this machine has
bool force_cpu_isa(int level);  // false where the machine lacks it; -1 goes back to the best

namespace detail {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define CV_HAS_ISA_VARIANTS 1
// Feature lists, not arch=: GCC inlines across differing feature sets but not across differing arch=
// (and arch=haswell silently picked the baseline on AMD).
#define CV_TARGET_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2,lzcnt,popcnt"), flatten, noinline))
#define CV_TARGET_AVX512                                                                             \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2,lzcnt,popcnt," \
                        "prefer-vector-width=512"),                                                \
                 flatten, noinline))

template <typename F> CV_TARGET_AVX2 void run_avx2(F& f) { f(); }
template <typename F> CV_TARGET_AVX512 void run_avx512(F& f) { f(); }
#endif
template <typename F> __attribute__((flatten, noinline)) void run_baseline(F& f) { f(); }
}  // namespace detail

template <typename F>
inline void vectorized(F&& f) {
#ifdef CV_HAS_ISA_VARIANTS
  switch (cpu_isa()) {
    case Isa::avx512: return detail::run_avx512(f);
    case Isa::avx2: return detail::run_avx2(f);
    default: break;
  }
#endif
  detail::run_baseline(f);
}

}  // namespace cv
