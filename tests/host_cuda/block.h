#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

// One block of CUDA threads after the other, each thread a fiber. What CUDA leaves undefined is an error
// here: a barrier or a warp function that some of its threads never reach, or reach in different places.
namespace host_cuda {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
  size_t volume() const { return size_t{x} * y * z; }
};

struct Place {
  const char* function;
  const char* file;
  int line;
};

// Runs `body` for every thread of every block. Returns what went wrong, empty where nothing did.
std::string run_grid(const Extent& grid, const Extent& block, const std::function<void()>& body);

// Below: called by the threads of a block.

// Waits for all threads of the block and returns the sum of their values.
int64_t sync_block(int64_t value, const Place& place);

// Waits for the lanes in `mask` and returns what each of them gave: [32], valid until the thread's next call.
const uint64_t* sync_warp(uint32_t mask, uint64_t value, const Place& place);

// Memory of the block, one for each key, filled with NaN.
void* shared_memory(const void* key, size_t bytes, size_t alignment);

// Place of the running thread in its warp.
int lane_index();

// Ends the launch with an error.
[[noreturn]] void fail(const std::string& what);

}  // namespace host_cuda
