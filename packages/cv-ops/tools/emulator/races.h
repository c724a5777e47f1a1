#pragma once
// What the scheduler tells the race detector, and asks it for. The detector sees each access to memory because the
// kernels are compiled with -fsanitize=thread, whose runtime races.cpp replaces; in other builds it sees nothing.

#include <cstddef>
#include <cstdint>
#include <string>

namespace simt {

// Stops the running thread, and with it the launch. Returns only to satisfy the compiler.
void fail(const std::string& what);

// Which thread runs, for code that asks at each access.
struct Running {
  bool any = false;  // false in the host's code
  uint32_t thread = 0, warp_epoch = 0;
  const char* stacks = nullptr;
  size_t stacks_size = 0;
};
extern Running running;

inline bool in_thread() { return running.any; }

namespace races {

void next_launch();
void next_block();
void next_epoch();  // a barrier was passed
void fresh_shared(void* memory, size_t size);

inline bool is_local(const void* p) {
  return static_cast<size_t>(static_cast<const char*>(p) - running.stacks) < running.stacks_size;
}
std::string thread_text(uint32_t thread);

}  // namespace races
}  // namespace simt
