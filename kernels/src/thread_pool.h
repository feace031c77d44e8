#pragma once

#include <algorithm>
#include <cstdint>

namespace patchcut {

using ParallelBody = void (*)(void* context, int64_t begin, int64_t end);

// Runs body over [0, count) in chunks of `grain`, on the pool and the calling thread.
void run_parallel(int64_t count, int64_t grain, ParallelBody body, void* context);

// Calls body(begin, end) on disjoint ranges that cover [0, count). What body computes for an item must not
// depend on the range it came in: that keeps results equal for every thread count.
template <class Body>
void parallel_for(int64_t count, int64_t cycles_per_item, const Body& body) {
  // A chunk is worth about 10 us, so that waking a thread pays.
  constexpr int64_t kChunkCycles = 30000;
  const int64_t grain = std::max<int64_t>(1, kChunkCycles / std::max<int64_t>(1, cycles_per_item));
  if (count <= 0) return;
  if (count <= grain) return body(int64_t{0}, count);
  auto call = [](void* context, int64_t begin, int64_t end) {
    (*static_cast<const Body*>(context))(begin, end);
  };
  run_parallel(count, grain, call, const_cast<Body*>(&body));
}

}  // namespace patchcut
