#include "block.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace host_cuda {
namespace {

constexpr int kWarp = 32;
constexpr size_t kSharedBytes = 48 * 1024;  // that a kernel has on every device without asking for more

enum class State { kReady, kAtBarrier, kInWarp, kDone };

struct Thread {
  uint3 index;
  State state;
  Place place;
  uint32_t mask;
  uint64_t value;
  std::array<uint64_t, kWarp> received;
};

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

struct Block {
  std::vector<Thread> threads;
  std::map<const void*, std::unique_ptr<void, Free>> shared;
  size_t shared_bytes = 0;
  std::vector<int> ready;  // to run in the next round
  int running = 0;
  int at_barrier = 0;
  int done = 0;
  int64_t barrier_sum = 0;
  int64_t barrier_result = 0;
  std::string error;
};

Block block;

// 0 runs threads and blocks in their order; any other seed shuffles both.
unsigned shuffle_seed() {
  const char* text = std::getenv("PATCHCUT_HOST_CUDA_SEED");
  return text == nullptr ? 0 : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

std::string describe(const Place& place) {
  return std::string(place.function) + " at " + place.file + ":" + std::to_string(place.line);
}

std::string describe(const Thread& thread) {
  return "thread (" + std::to_string(thread.index.x) + ", " + std::to_string(thread.index.y) + ", " +
         std::to_string(thread.index.z) + ") of block (" + std::to_string(blockIdx.x) + ", " +
         std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + ")";
}

// One source has one copy of most names: comparing their texts took a third of a test's time.
bool same_text(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

bool same_place(const Place& a, const Place& b) {
  return a.line == b.line && same_text(a.file, b.file) && same_text(a.function, b.function);
}

Thread& running_thread() { return block.threads[static_cast<size_t>(block.running)]; }

void wait_as(State state, const Place& place) {
  Thread& self = running_thread();
  self.state = state;
  self.place = place;
}

void wake(int index) {
  block.threads[static_cast<size_t>(index)].state = State::kReady;
  block.ready.push_back(index);
}

// Lets everybody go where all threads of the block wait.
void release_barrier() {
  if (block.at_barrier < static_cast<int>(block.threads.size())) return;
  for (const Thread& thread : block.threads) {
    if (!same_place(thread.place, block.threads[0].place)) {
      fail(describe(thread) + " waits in " + describe(thread.place) + ", others in " +
           describe(block.threads[0].place));
    }
  }
  block.barrier_result = std::exchange(block.barrier_sum, 0);
  block.at_barrier = 0;
  for (size_t i = 0; i < block.threads.size(); ++i) wake(static_cast<int>(i));
}

// Lets the lanes of `mask` go where all of them wait in the same call.
void release_lanes(int first_lane, uint32_t mask, const Place& place) {
  std::array<uint64_t, kWarp> values{};
  for (int lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    const Thread& other = block.threads[static_cast<size_t>(first_lane + lane)];
    if (other.state == State::kDone)
      fail(describe(other) + " ended, others wait for it in " + describe(place));
    if (other.state != State::kInWarp) return;
    if (other.mask != mask || !same_place(other.place, place)) {
      fail(describe(other) + " waits in " + describe(other.place) + ", others of its warp in " +
           describe(place) + ", or with another mask");
    }
    values[static_cast<size_t>(lane)] = other.value;
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    block.threads[static_cast<size_t>(first_lane + lane)].received = values;
    wake(first_lane + lane);
  }
}

std::string describe_deadlock() {
  for (const Thread& thread : block.threads) {
    if (thread.state == State::kAtBarrier || thread.state == State::kInWarp) {
      return describe(thread) + " waits for ever in " + describe(thread.place) + ": " +
             std::to_string(block.done) + " threads of its block have ended";
    }
  }
  return "";
}

void start_block(const Extent& extent, const std::function<void()>& body) {
  const size_t count = extent.volume();
  block = Block();
  block.threads.resize(count);
  block.ready.resize(count);
  std::iota(block.ready.begin(), block.ready.end(), 0);
  for (size_t i = 0; i < count; ++i) {
    const unsigned at = static_cast<unsigned>(i);
    block.threads[i].index = {at % extent.x, at / extent.x % extent.y, at / (extent.x * extent.y)};
    block.threads[i].state = State::kReady;
    prepare_fiber(static_cast<int>(i), &body);
  }
}

void run_block(const Extent& extent, const std::function<void()>& body, std::mt19937* shuffle) {
  start_block(extent, body);
  std::vector<int> round;
  while (!block.ready.empty()) {
    round.clear();
    round.swap(block.ready);
    if (shuffle != nullptr) std::shuffle(round.begin(), round.end(), *shuffle);
    for (const int index : round) {
      block.running = index;
      threadIdx = running_thread().index;
      if (enter_fiber(index)) {
        running_thread().state = State::kDone;
        ++block.done;
      }
      if (!block.error.empty()) return;
    }
  }
  block.error = describe_deadlock();
}

std::string check_launch(const Extent& grid, const Extent& extent) {
  const size_t threads = extent.volume();
  if (threads == 0 || threads > static_cast<size_t>(kMaxFibers) || threads % kWarp != 0 || extent.z > 64) {
    return "a block must have 1 to 32 whole warps, got " + std::to_string(threads) + " threads";
  }
  if (grid.volume() == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return "a grid must have 1 to 2^31-1 x 65535 x 65535 blocks";
  }
  return "";
}

}  // namespace

std::string run_grid(const Extent& grid, const Extent& extent, const std::function<void()>& body) {
  static std::mutex one_grid_at_a_time;
  const std::lock_guard<std::mutex> lock(one_grid_at_a_time);
  const std::string wrong = check_launch(grid, extent);
  if (!wrong.empty()) return wrong;
  gridDim = {grid.x, grid.y, grid.z};
  blockDim = {extent.x, extent.y, extent.z};
  const unsigned seed = shuffle_seed();
  std::mt19937 shuffle(seed);
  std::vector<size_t> order(grid.volume());
  std::iota(order.begin(), order.end(), size_t{0});
  if (seed != 0) std::shuffle(order.begin(), order.end(), shuffle);
  for (const size_t at : order) {
    blockIdx = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                static_cast<unsigned>(at / grid.x / grid.y)};
    run_block(extent, body, seed == 0 ? nullptr : &shuffle);
    if (!block.error.empty()) break;
  }
  block.shared.clear();
  return block.error;
}

int64_t sync_block(int64_t value, const Place& place) {
  wait_as(State::kAtBarrier, place);
  block.barrier_sum += value;
  ++block.at_barrier;
  release_barrier();
  leave_fiber();
  return block.barrier_result;
}

const uint64_t* sync_warp(uint32_t mask, uint64_t value, const Place& place) {
  Thread& self = running_thread();
  if ((mask >> lane_index() & 1) == 0) fail(describe(self) + " is not in its own mask in " + describe(place));
  self.mask = mask;
  self.value = value;
  wait_as(State::kInWarp, place);
  release_lanes(block.running - lane_index(), mask, place);
  leave_fiber();
  return self.received.data();
}

void* shared_memory(const void* key, size_t bytes, size_t alignment) {
  std::unique_ptr<void, Free>& memory = block.shared[key];
  if (memory == nullptr) {
    void* fresh = nullptr;
    block.shared_bytes += bytes;
    if (block.shared_bytes > kSharedBytes) fail("a block takes more than 48 KiB of shared memory");
    if (posix_memalign(&fresh, std::max(alignment, sizeof(void*)), bytes) != 0) fail("out of memory");
    std::memset(fresh, 0xff, bytes);
    memory.reset(fresh);
  }
  return memory.get();
}

int lane_index() { return block.running % kWarp; }

void fail(const std::string& what) {
  block.error = what;
  leave_fiber();
  std::abort();  // a thread that failed is never entered again
}

}  // namespace host_cuda
