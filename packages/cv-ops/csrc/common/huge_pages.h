#pragma once
// Large results on huge pages. Memory of this size comes fresh from the system with each call, and to touch it for the
// first time, 4 KiB at a time, costs several times as much as to write it. NumPy asks for the same. No torch here.

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace cv {

constexpr uint64_t kHugePage = 2 << 20;

// A hint: where the system has none to give, nothing changes.
inline void use_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] uint64_t bytes) {
#if defined(MADV_HUGEPAGE)
  const uint64_t begin = (reinterpret_cast<uint64_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
  const uint64_t end = (reinterpret_cast<uint64_t>(data) + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace cv
