#pragma once
// Fibers: a stack and a saved stack pointer. A switch saves what the x86-64 calling convention wants saved, and
// makes no system call. A finished fiber's stack serves the next one, so that threads which never wait share one.

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#if !defined(__x86_64__)
#error "the emulator switches fibers on x86-64 only"
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

extern "C" void simt_switch(void** save, void* to);
asm(R"(
.text
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
)");

namespace simt {

// Stacks lie in one mapping, a page without access below each, so that an address tells whether it is a local
// variable. Memory is taken when it is touched.
class Stacks {
 public:
  static constexpr size_t kSize = 256 << 10, kGuard = 4096, kCount = 1024;

  Stacks() {
    void* p = mmap(nullptr, kCount * kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char*>(p);
    for (size_t i = 0; i < kCount; ++i) mprotect(base_ + i * kSize, kGuard, PROT_NONE);
    reset();
  }
  // All stacks are free again, whatever is on them.
  void reset() {
    free_.clear();
    for (size_t i = kCount; i-- > 0;) free_.push_back(static_cast<int>(i));
  }
  int take() {
    const int index = free_.back();
    free_.pop_back();
    return index;
  }
  void give_back(int index) { free_.push_back(index); }
  const char* begin() const { return base_; }
  size_t size() const { return kCount * kSize; }
  // The stack pointer of a fiber that begins with entry().
  void* fresh(int index, void (*entry)()) const {
    char* bottom = base_ + static_cast<size_t>(index) * kSize;
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(bottom + kGuard, kSize - kGuard);
#endif
    // As after a call: 16 bytes aligned plus 8. Six registers, the return address, and a frame below none.
    void** top = reinterpret_cast<void**>(bottom + kSize) - 2;
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    return top;
  }

 private:
  char* base_;
  std::vector<int> free_;
};

}  // namespace simt
