// Races between the threads of a launch, from the accesses that -fsanitize=thread reports: its runtime is not linked,
// these functions stand in its place. Also what -fsanitize=alignment,bounds,… of the same compiler finds.
//
// Two accesses to a byte, at least one a write and not both atomic, are a race if nothing orders them: a barrier
// orders the threads of a block, __syncwarp those of a warp, nothing the blocks of a launch. Shuffles and votes do
// not order memory. Four bytes share one record of the last write and of the reads since; where two threads use
// different bytes of the four, one of them may be forgotten, so a race of 16-bit numbers can be missed, and none is
// invented.

#include "races.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <unordered_map>

#include "simt.h"

namespace simt::races {
namespace {

struct Access {
  uint32_t block, epoch, warp_epoch;
  uint16_t thread;
  uint8_t bytes;  // which of the four; 0: none
};
struct Cell {
  uint32_t launch = 0;
  bool write_atomic = false, many_threads = false, many_blocks = false;  // the latter two: of reads
  Access write{}, read{};
};
constexpr size_t kPage = 4096, kCells = kPage / 4, kCached = 256, kMaxPages = 8192;
struct Page {
  Cell cells[kCells];
};
struct Cached {
  uintptr_t number = 0;
  Page* page = nullptr;
};

struct Shadow {
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
  Cached cache[kCached];
  uint32_t launch = 1, block = 0, epoch = 0;
};
Shadow the_shadow;
Shadow& shadow() { return the_shadow; }

Page& page_of(uintptr_t number) {
  Shadow& s = shadow();
  Cached& c = s.cache[number % kCached];
  if (c.page == nullptr || c.number != number) {
    std::unique_ptr<Page>& p = s.pages[number];
    if (!p) p = std::make_unique<Page>();
    c = {number, p.get()};
  }
  return *c.page;
}

bool ordered(const Access& before, const Access& now) {
  if (before.block != now.block) return false;
  return before.thread == now.thread || before.epoch != now.epoch ||
         (before.thread / 32 == now.thread / 32 && before.warp_epoch != now.warp_epoch);
}

void report(const char* first, const Access& before, const char* second, const void* address) {
  const std::string who = before.block == shadow().block ? thread_text(before.thread) + " of the block"
                                                         : "a thread of block number " + std::to_string(before.block);
  char at[32];
  snprintf(at, sizeof at, "%p", address);
  fail(std::string("race: ") + second + " of " + at + " that is not ordered with a " + first + " by " + who);
}

void touch(const void* p, size_t size, bool write, bool atomic) {
  Shadow& s = shadow();
  Access now{s.block, s.epoch, running.warp_epoch, static_cast<uint16_t>(running.thread), 0};
  uintptr_t at = reinterpret_cast<uintptr_t>(p);
  const uintptr_t end = at + size;
  while (at < end) {
    const uintptr_t granule = at & ~uintptr_t{3};
    const unsigned first = static_cast<unsigned>(at - granule);
    const unsigned last = end - granule < 4 ? static_cast<unsigned>(end - granule) : 4;
    now.bytes = static_cast<uint8_t>((0xfu >> (4 - (last - first))) << first);
    Cell& c = page_of(granule / kPage).cells[granule % kPage / 4];
    if (c.launch != s.launch) {
      c = Cell{};
      c.launch = s.launch;
    }
    if ((c.write.bytes & now.bytes) && !(atomic && c.write_atomic) && !ordered(c.write, now))
      return report(c.write_atomic ? "atomic operation" : "write", c.write,
                    atomic ? "atomic operation" : write ? "write" : "read", p);
    if (write) {
      if (c.read.bytes & now.bytes) {
        const bool other = c.many_threads && c.read.epoch == now.epoch;  // another thread than this one is among them
        if (c.many_blocks || other || !ordered(c.read, now))
          return report("read", c.read, atomic ? "atomic operation" : "write", p);
      }
      c.write = now;
      c.write_atomic = atomic;
    } else if (c.read.block == now.block && c.read.epoch != now.epoch && !c.many_blocks) {
      c.read = now;  // those before a barrier are ordered with all that comes
      c.many_threads = false;
    } else if (c.read.block == now.block && c.read.thread == now.thread && !c.many_blocks && !c.many_threads) {
      c.read.warp_epoch = now.warp_epoch;
      c.read.bytes |= now.bytes;
    } else if ((c.read.bytes & now.bytes) == 0) {
      c.read = now;  // the one before, of other bytes, is forgotten
      c.many_threads = c.many_blocks = false;
    } else {
      if (c.read.block != now.block) c.many_blocks = true;
      if (c.read.block != now.block || c.read.thread != now.thread) c.many_threads = true;
      c.read.bytes &= now.bytes;
    }
    at = granule + 4;
  }
}

inline void access(const void* p, size_t size, bool write, bool atomic = false) {
  if (!in_thread() || is_local(p)) return;
  touch(p, size, write, atomic);
}

}  // namespace

void next_launch() {
  Shadow& s = shadow();
  ++s.launch;
  s.block = s.epoch = 0;
  if (s.pages.size() > kMaxPages) {
    s.pages.clear();
    for (Cached& c : s.cache) c = {};
  }
}
void next_block() {
  ++shadow().block;
  shadow().epoch = 0;
}
void next_epoch() { ++shadow().epoch; }

// Each block has its own; here they have the same addresses one after the other.
void fresh_shared(void* memory, size_t size) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory) / 4, end = (reinterpret_cast<uintptr_t>(memory) + size + 3) / 4;
  for (uintptr_t granule = begin; granule < end; ++granule)
    page_of(granule * 4 / kPage).cells[granule * 4 % kPage / 4] = Cell{};
}

}  // namespace simt::races

namespace simt {

#if defined(SIMT_RACES)
void atomic_access(const void* address, size_t size) { races::access(address, size, true, true); }
#else
void atomic_access(const void*, size_t) {}
#endif

}  // namespace simt

#if defined(SIMT_RACES)

// --- the runtime of -fsanitize=thread ---------------------------------------------------------------------

#define SIMT_ACCESS(size)                                                                                    \
  void __tsan_read##size(void* p) { simt::races::access(p, size, false); }                                   \
  void __tsan_write##size(void* p) { simt::races::access(p, size, true); }                                   \
  void __tsan_unaligned_read##size(void* p) { simt::races::access(p, size, false); }                         \
  void __tsan_unaligned_write##size(void* p) { simt::races::access(p, size, true); }                         \
  void __tsan_volatile_read##size(void* p) { simt::races::access(p, size, false); }                          \
  void __tsan_volatile_write##size(void* p) { simt::races::access(p, size, true); }                          \
  void __tsan_unaligned_volatile_read##size(void* p) { simt::races::access(p, size, false); }                \
  void __tsan_unaligned_volatile_write##size(void* p) { simt::races::access(p, size, true); }

// The host code of the same files is compiled alike, and nothing of it is of interest here: its atomics are done.
#define SIMT_ATOMIC(bits, type)                                                                              \
  type __tsan_atomic##bits##_load(const volatile type* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); } \
  void __tsan_atomic##bits##_store(volatile type* p, type v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); } \
  type __tsan_atomic##bits##_exchange(volatile type* p, type v, int) {                                       \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                      \
  }                                                                                                          \
  type __tsan_atomic##bits##_fetch_add(volatile type* p, type v, int) {                                      \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                                       \
  }                                                                                                          \
  type __tsan_atomic##bits##_fetch_sub(volatile type* p, type v, int) {                                      \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                                       \
  }                                                                                                          \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* p, type* expected, type v, int, int) {    \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);           \
  }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* p, size_t size) { simt::races::access(p, size, false); }
void __tsan_write_range(void* p, size_t size) { simt::races::access(p, size, true); }
SIMT_ACCESS(1)
SIMT_ACCESS(2)
SIMT_ACCESS(4)
SIMT_ACCESS(8)
SIMT_ACCESS(16)
SIMT_ATOMIC(8, uint8_t)
SIMT_ATOMIC(16, uint16_t)
SIMT_ATOMIC(32, uint32_t)
SIMT_ATOMIC(64, uint64_t)
}

// --- the runtime of -fsanitize=alignment,bounds,shift,signed-integer-overflow,integer-divide-by-zero ------------

namespace {

struct Place {
  const char* file;
  uint32_t line, column;
};

void undefined(const void* data, const char* what) {
  const Place& at = *static_cast<const Place*>(data);
  const std::string text = std::string(what) + " at " + (at.file ? at.file : "?") + ":" + std::to_string(at.line);
  if (simt::in_thread()) return simt::fail(text);
  fprintf(stderr, "host code of a CUDA operator: %s\n", text.c_str());
  abort();
}

}  // namespace

#define SIMT_UNDEFINED(name, what) \
  void __ubsan_handle_##name(void* data, void*, void*) { undefined(data, what); }

extern "C" {
SIMT_UNDEFINED(type_mismatch_v1, "misaligned or null address")
SIMT_UNDEFINED(out_of_bounds, "index outside its array")
SIMT_UNDEFINED(shift_out_of_bounds, "shift by more than the width, or of a negative number")
SIMT_UNDEFINED(add_overflow, "integer overflow")
SIMT_UNDEFINED(sub_overflow, "integer overflow")
SIMT_UNDEFINED(mul_overflow, "integer overflow")
SIMT_UNDEFINED(negate_overflow, "integer overflow")
SIMT_UNDEFINED(divrem_overflow, "division by zero, or overflow")
}

#endif
