// The scheduler of simt.h, and what stands for the CUDA runtime.
//
// CV_OPS_EMULATOR_ORDER=ascending (default) | descending | random:SEED is the order of blocks, and of the threads
// of a block between two barriers; cv_ops_emulator_order() changes it later.

#include "simt.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "fiber.h"
#include "races.h"
#include "torch_cuda.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {

Running running;

namespace {

constexpr int kWarp = 32;
constexpr size_t kSharedLimit = 48 << 10;

struct Site {
  const char* file = "";
  int line = 0;
  bool operator==(const Site& o) const { return line == o.line && strcmp(file, o.file) == 0; }
};

enum class State { kReady, kBarrier, kWarp, kDone };

struct Thread {
  State state;
  uint3 index;
  int stack;  // -1: not begun
  void* sp;
  Site site;  // where it waits
  Barrier barrier;
  Warp warp;
  unsigned mask;
  int argument, width;
  uint64_t value;  // given, then received
  uint32_t warp_epoch;
};

enum class Order { kAscending, kDescending, kRandom };

struct Shared {
  const void* declaration;
  const char* name;
  std::unique_ptr<char[]> memory;
  char* data;
  size_t size;
  bool live;  // in the current block
};

struct Machine {
  std::mutex one_launch;
  Stacks stacks;
  std::vector<Thread> threads;
  std::vector<int> order;
  int thread_count = 0, running = -1, alive = 0;
  void* scheduler_sp = nullptr;
  const Kernel* body = nullptr;
  const char* kernel = "";
  std::string error;
  std::vector<Shared> shared;
  size_t shared_size = 0;
  Order kind = Order::kAscending;
  std::mt19937_64 random;
  struct Copy {
    void* to;
    std::vector<char> bytes;
  };
  std::vector<Copy> copies;
  char stream = 0;  // its address is the current stream
};

Machine the_machine;
Machine& machine() { return the_machine; }

std::string text(uint3 v) {
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}
std::string text(const Site& s) {
  const char* name = strrchr(s.file, '/');
  return std::string(name ? name + 1 : s.file) + ":" + std::to_string(s.line);
}
std::string text(const Thread& t) { return "thread " + text(t.index); }

const char* name_of(Warp w) {
  static const char* const names[] = {"__shfl_sync",   "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync",
                                      "__ballot_sync", "__any_sync",     "__all_sync",       "__syncwarp"};
  return names[static_cast<int>(w)];
}
const char* name_of(Barrier b) {
  static const char* const names[] = {"__syncthreads", "__syncthreads_or", "__syncthreads_and", "__syncthreads_count"};
  return names[static_cast<int>(b)];
}

std::string waiting(const Thread& t) {
  if (t.state == State::kDone) return text(t) + " has returned";
  if (t.state == State::kBarrier) return text(t) + " waits at " + name_of(t.barrier) + " (" + text(t.site) + ")";
  if (t.state == State::kWarp) return text(t) + " waits at " + name_of(t.warp) + " (" + text(t.site) + ")";
  return text(t) + " runs";
}

std::string in_kernel() { return std::string(machine().kernel) + ", block " + text(blockIdx) + ": "; }

void to_scheduler() {
  Machine& m = machine();
  Thread& t = m.threads[static_cast<size_t>(m.running)];
  simt_switch(&t.sp, m.scheduler_sp);
}

// --- fibers -----------------------------------------------------------------------------------------------

void fiber_main() {
  Machine& m = machine();
  (*m.body)();
  m.threads[static_cast<size_t>(m.running)].state = State::kDone;
  to_scheduler();
}

void resume(int i) {
  Machine& m = machine();
  Thread& t = m.threads[static_cast<size_t>(i)];
  if (t.stack < 0) {
    t.stack = m.stacks.take();
    t.sp = m.stacks.fresh(t.stack, fiber_main);
  }
  m.running = i;
  threadIdx = t.index;
  running.any = true;
  running.thread = static_cast<uint32_t>(i);
  running.warp_epoch = t.warp_epoch;
  simt_switch(&m.scheduler_sp, t.sp);
  running.any = false;
  m.running = -1;
  if (t.state == State::kDone) {
    m.stacks.give_back(t.stack);
    --m.alive;
  }
}

// --- warps ------------------------------------------------------------------------------------------------

// The lane that lane `lane` reads from; itself where CUDA says so.
int source_lane(const Thread& t, int lane) {
  const int base = lane & ~(t.width - 1), in = lane & (t.width - 1);
  switch (t.warp) {
    case Warp::kShuffle: return base + (t.argument & (t.width - 1));
    case Warp::kShuffleUp: return in - t.argument < 0 ? lane : lane - t.argument;
    case Warp::kShuffleDown: return in + t.argument >= t.width ? lane : lane + t.argument;
    case Warp::kShuffleXor: {
      const int from = lane ^ t.argument;
      return from < base + t.width ? from : lane;
    }
    default: return lane;
  }
}

// Lets the lanes of one mask go on if all of them have arrived. False: an error was found.
bool try_finish(int first_thread, unsigned mask) {
  Machine& m = machine();
  Thread* lanes = &m.threads[static_cast<size_t>(first_thread)];
  const int here = std::min(kWarp, m.thread_count - first_thread);
  const Thread* one = nullptr;
  bool complete = true;
  for (int l = 0; l < kWarp; ++l) {
    if (!(mask >> l & 1)) continue;
    if (l >= here) continue;  // the last warp of a block may have fewer threads: as if they had returned
    const Thread& t = lanes[l];
    if (t.state == State::kDone) continue;
    if (t.state != State::kWarp) {
      complete = false;
      continue;
    }
    if (one == nullptr) one = &t;
    if (t.warp != one->warp || t.mask != one->mask || !(t.site == one->site)) {
      m.error = in_kernel() + "the lanes of a warp are at different calls: " + waiting(*one) + " with mask " +
                std::to_string(one->mask) + ", " + waiting(t) + " with mask " + std::to_string(t.mask);
      return false;
    }
  }
  if (!complete || one == nullptr) return true;

  const Warp kind = one->warp;
  uint64_t votes = 0, results[kWarp] = {};
  for (int l = 0; l < here; ++l)
    if ((mask >> l & 1) && lanes[l].state == State::kWarp && lanes[l].value != 0) votes |= uint64_t{1} << l;
  for (int l = 0; l < here; ++l) {
    Thread& t = lanes[l];
    if (!(mask >> l & 1) || t.state != State::kWarp) continue;
    uint64_t result = 0;
    if (kind == Warp::kBallot) {
      result = votes;
    } else if (kind == Warp::kAny) {
      result = votes != 0;
    } else if (kind == Warp::kAll) {
      result = 1;
      for (int k = 0; k < here; ++k)
        if ((mask >> k & 1) && lanes[k].state == State::kWarp && lanes[k].value == 0) result = 0;
    } else if (kind != Warp::kSync) {
      const int from = source_lane(t, l);
      if (from < 0 || from >= here || !(mask >> from & 1) || lanes[from].state != State::kWarp) {
        m.error = in_kernel() + text(t) + " reads lane " + std::to_string(from) + " in " + name_of(kind) + " (" +
                  text(t.site) + "), which takes no part: " +
                  (from >= 0 && from < here ? waiting(lanes[from]) : "the block has no such thread");
        return false;
      }
      result = lanes[from].value;
    }
    results[l] = result;
  }
  for (int l = 0; l < here; ++l) {
    Thread& t = lanes[l];
    if (!(mask >> l & 1) || t.state != State::kWarp) continue;
    t.value = results[l];
    t.state = State::kReady;
    if (kind == Warp::kSync) ++t.warp_epoch;
  }
  return true;
}

// After thread `i` has stopped: the calls of its warp that this completes.
bool settle_warp(int i) {
  Machine& m = machine();
  const int first = i / kWarp * kWarp, here = std::min(kWarp, m.thread_count - first);
  const Thread& stopped = m.threads[static_cast<size_t>(i)];
  if (stopped.state == State::kWarp) return try_finish(first, stopped.mask);
  if (stopped.state != State::kDone) return true;
  for (int l = 0; l < here; ++l) {
    const Thread& t = m.threads[static_cast<size_t>(first + l)];
    if (t.state == State::kWarp && (t.mask >> (i - first) & 1) && !try_finish(first, t.mask)) return false;
  }
  return true;
}

// --- blocks -----------------------------------------------------------------------------------------------

// Nothing can run. True: a barrier was passed.
bool settle_block() {
  Machine& m = machine();
  const Thread *at_barrier = nullptr, *elsewhere = nullptr;
  int sum = 0, count = 0;
  for (int i = 0; i < m.thread_count; ++i) {
    const Thread& t = m.threads[static_cast<size_t>(i)];
    if (t.state == State::kDone) continue;
    if (t.state == State::kBarrier) {
      if (at_barrier != nullptr && (t.barrier != at_barrier->barrier || !(t.site == at_barrier->site))) {
        m.error = in_kernel() + "the threads are at different barriers: " + waiting(*at_barrier) + ", " + waiting(t);
        return false;
      }
      at_barrier = &t;
      sum += t.argument != 0;
      ++count;
    } else {
      elsewhere = &t;
    }
  }
  if (elsewhere != nullptr) {
    // A lane of its mask never arrived.
    const int i = static_cast<int>(elsewhere - m.threads.data()), first = i / kWarp * kWarp;
    for (int l = 0; l < kWarp && first + l < m.thread_count; ++l) {
      const Thread& t = m.threads[static_cast<size_t>(first + l)];
      if ((elsewhere->mask >> l & 1) && t.state != State::kDone &&
          !(t.state == State::kWarp && t.mask == elsewhere->mask)) {
        m.error = in_kernel() + waiting(*elsewhere) + " with mask " + std::to_string(elsewhere->mask) + ", and lane " +
                  std::to_string(l) + " of the mask never arrived: " + waiting(t);
        return false;
      }
    }
    m.error = in_kernel() + waiting(*elsewhere) + " for ever";
    return false;
  }
  int result = 0;
  if (at_barrier->barrier == Barrier::kOr) result = sum > 0;
  if (at_barrier->barrier == Barrier::kAnd) result = sum == count;
  if (at_barrier->barrier == Barrier::kCount) result = sum;
  for (int i = 0; i < m.thread_count; ++i) {
    Thread& t = m.threads[static_cast<size_t>(i)];
    if (t.state != State::kBarrier) continue;
    t.argument = result;
    t.state = State::kReady;
  }
  races::next_epoch();
  return true;
}

template <typename T>
void arrange(std::vector<T>& order) {
  Machine& m = machine();
  if (m.kind == Order::kRandom) std::shuffle(order.begin(), order.end(), m.random);
}

bool run_block() {
  Machine& m = machine();
  for (int i = 0; i < m.thread_count; ++i) {
    Thread& t = m.threads[static_cast<size_t>(i)];
    t.state = State::kReady;
    t.stack = -1;
    t.warp_epoch = 0;
  }
  for (Shared& s : m.shared) s.live = false;
  m.shared_size = 0;
  m.alive = m.thread_count;
  while (m.alive > 0) {
    arrange(m.order);
    bool went_on = false;
    for (int i : m.order) {
      if (m.threads[static_cast<size_t>(i)].state != State::kReady) continue;
      resume(i);
      went_on = true;
      if (!m.error.empty() || !settle_warp(i)) return false;
    }
    if (!went_on && !settle_block()) return false;
  }
  return true;
}

void set_order(const char* order) {
  Machine& m = machine();
  const std::string name = order;
  if (name == "ascending" || name.empty()) {
    m.kind = Order::kAscending;
  } else if (name == "descending") {
    m.kind = Order::kDescending;
  } else if (name.rfind("random:", 0) == 0) {
    m.kind = Order::kRandom;
    m.random.seed(strtoull(name.c_str() + 7, nullptr, 10));
  } else {
    throw std::runtime_error("the order of threads is ascending, descending or random:SEED, not " + name);
  }
}

void check_launch(const dim3& grid, const dim3& block, size_t dynamic_shared, const void* stream, const Site& site) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  std::string what;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || threads == 0)
    what = "an empty grid or block";
  else if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    what = "a grid that is too large";
  else if (threads > 1024 || block.z > 64)
    what = "a block that is too large";
  else if (dynamic_shared != 0)
    what = "dynamic shared memory, which the emulator does not have";
  else if (stream != &machine().stream)
    what = "another stream than torch's current one";
  if (what.empty()) return;
  throw std::runtime_error(std::string(machine().kernel) + " (" + text(site) + "): a launch with " + what + ": grid " +
                           text(uint3{grid.x, grid.y, grid.z}) + ", block " + text(uint3{block.x, block.y, block.z}));
}

}  // namespace

void run(const char* kernel, const char* file, int line, dim3 grid, dim3 block, size_t dynamic_shared, void* stream,
         const Kernel& thread) {
  Machine& m = machine();
  const std::lock_guard<std::mutex> lock(m.one_launch);
  static const bool from_environment = [] {
    if (const char* order = getenv("CV_OPS_EMULATOR_ORDER")) set_order(order);
    return true;
  }();
  (void)from_environment;
  m.kernel = kernel;
  check_launch(grid, block, dynamic_shared, stream, Site{file, line});
  gridDim = grid;
  blockDim = block;
  m.body = &thread;
  m.error.clear();
  m.stacks.reset();
  running.stacks = m.stacks.begin();
  running.stacks_size = m.stacks.size();
  m.shared.clear();
  m.thread_count = static_cast<int>(block.x * block.y * block.z);
  m.threads.resize(static_cast<size_t>(m.thread_count));
  m.order.resize(static_cast<size_t>(m.thread_count));
  for (int i = 0; i < m.thread_count; ++i) {
    const auto u = static_cast<unsigned>(i);
    m.threads[u].index = {u % block.x, u / block.x % block.y, u / block.x / block.y};
    m.order[u] = m.kind == Order::kDescending ? m.thread_count - 1 - i : i;
  }
  races::next_launch();
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  std::vector<uint64_t> block_order;
  if (m.kind == Order::kRandom) {
    block_order.resize(blocks);
    for (uint64_t b = 0; b < blocks; ++b) block_order[b] = b;
    arrange(block_order);
  }
  for (uint64_t n = 0; n < blocks; ++n) {
    const uint64_t b = m.kind == Order::kRandom ? block_order[n] : m.kind == Order::kDescending ? blocks - 1 - n : n;
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                static_cast<unsigned>(b / grid.x / grid.y)};
    races::next_block();
    if (!run_block()) break;
  }
  m.body = nullptr;
  m.running = -1;
  if (!m.error.empty()) throw std::runtime_error(m.error);
}

void* shared_memory(const void* declaration, const char* name, size_t size, size_t alignment) {
  Machine& m = machine();
  Shared* found = nullptr;
  for (Shared& s : m.shared)
    if (s.declaration == declaration) found = &s;
  if (found == nullptr) {
    // Exactly as large as it is, so that AddressSanitizer sees an access beside it.
    const size_t room = size + alignment;
    Shared s{declaration, name, std::unique_ptr<char[]>(new char[room]), nullptr, size, false};
    const auto end = (reinterpret_cast<uintptr_t>(s.memory.get()) + room - size) / alignment * alignment;
    s.data = reinterpret_cast<char*>(end);
    m.shared.push_back(std::move(s));
    found = &m.shared.back();
  }
  if (!found->live) {
    found->live = true;
    memset(found->data, 0xff, size);
    races::fresh_shared(found->data, size);
    m.shared_size += (size + 15) / 16 * 16;
    if (m.shared_size > kSharedLimit)
      fail("more than 48 KiB of shared memory, with " + std::string(name) + " of " + std::to_string(size) + " bytes");
  }
  return found->data;
}

int barrier(Barrier kind, int value, const char* file, int line) {
  Machine& m = machine();
  Thread& t = m.threads[static_cast<size_t>(m.running)];
  t.state = State::kBarrier;
  t.barrier = kind;
  t.argument = value;
  t.site = {file, line};
  to_scheduler();
  return t.argument;
}

uint64_t warp(Warp kind, unsigned mask, uint64_t value, int argument, int width, const char* file, int line) {
  Machine& m = machine();
  Thread& t = m.threads[static_cast<size_t>(m.running)];
  t.warp = kind;
  t.mask = mask;
  t.value = value;
  t.argument = argument;
  t.width = width;
  t.site = {file, line};
  t.state = State::kWarp;
  if (!(mask >> (m.running % kWarp) & 1)) {
    fail(std::string(name_of(kind)) + " (" + text(t.site) + ") with mask " + std::to_string(mask) +
         ", which does not hold the calling lane");
  } else if (width < 1 || width > kWarp || (width & (width - 1)) != 0) {
    fail(std::string(name_of(kind)) + " (" + text(t.site) + ") with width " + std::to_string(width));
  } else {
    to_scheduler();
  }
  return t.value;
}

void fail(const std::string& what) {
  Machine& m = machine();
  Thread& t = m.threads[static_cast<size_t>(m.running)];
  if (m.error.empty()) m.error = in_kernel() + text(t) + ": " + what;
  to_scheduler();  // for good: the launch ends
}

void* current_stream() { return &machine().stream; }

namespace races {

std::string thread_text(uint32_t thread) { return text(machine().threads[thread]); }

}  // namespace races
}  // namespace simt

// --- the CUDA runtime, and torch's C functions for CUDA ---------------------------------------------------

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  simt::Machine& m = simt::machine();
  if (kind != cudaMemcpyDeviceToHost || stream != &m.stream) return 1;
  const char* bytes = static_cast<const char*>(from);
  m.copies.push_back({to, std::vector<char>(bytes, bytes + size)});
  memset(to, 0xff, size);
  return 0;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  simt::Machine& m = simt::machine();
  if (stream != &m.stream) return 1;
  for (const auto& copy : m.copies) memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
  m.copies.clear();
  return 0;
}

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void cv_ops_emulator_order(const char* order) { simt::set_order(order); }
