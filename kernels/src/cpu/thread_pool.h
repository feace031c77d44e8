#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/interrupt.h"
#include "cpu/threads.h"

namespace patchcut {

using ParallelBody = void (*)(void* context, int64_t begin, int64_t end);

// Runs body over [0, count) in chunks of `grain`, on the pool and the calling thread.
void run_parallel(int64_t count, int64_t grain, ParallelBody body, void* context);

// A chunk is worth about 10 us, so that waking a thread pays.
inline int64_t least_chunk(int64_t cycles_per_item) {
  constexpr int64_t kChunkCycles = 30000;
  return std::max<int64_t>(1, kChunkCycles / std::max<int64_t>(1, cycles_per_item));
}

// Items between two looks at whether the caller wants the op to end: about 5 ms.
inline int64_t largest_piece(int64_t cycles_per_item) {
  constexpr int64_t kPieceCycles = 15000000;
  return std::max<int64_t>(1, kPieceCycles / std::max<int64_t>(1, cycles_per_item));
}

// A loop of one call, whatever thread takes a chunk of it.
template <class Body>
struct Loop {
  const Body& body;
  int64_t piece;
  Interruptible* call;

  void operator()(int64_t begin, int64_t end) const {
    const WorkFor working(call);
    for (; begin < end; begin += piece) {
      check_interrupt();
      body(begin, std::min(begin + piece, end));
    }
  }
};

// Calls body(begin, end) for chunks of `grain` and smaller that cover [0, count).
template <class Body>
void run_chunks(int64_t count, int64_t grain, int64_t cycles_per_item, const Body& body) {
  if (count <= 0) return;
  Loop<Body> loop{body, largest_piece(cycles_per_item), call_of_thread.call};
  if (count <= grain) return loop(0, count);
  auto call = [](void* context, int64_t begin, int64_t end) {
    (*static_cast<const Loop<Body>*>(context))(begin, end);
  };
  run_parallel(count, grain, call, &loop);
}

// Calls body(begin, end) on disjoint ranges that cover [0, count). What body computes for an item must not
// depend on the range it came in: that keeps results equal for every thread count.
template <class Body>
void parallel_for(int64_t count, int64_t cycles_per_item, const Body& body) {
  run_chunks(count, least_chunk(cycles_per_item), cycles_per_item, body);
}

// The same with one range for each thread, for passes that follow each other over the same items: a thread
// mostly gets the same ones again, which are in its core's cache.
template <class Body>
void parallel_shares(int64_t count, int64_t cycles_per_item, const Body& body) {
  const int64_t share = (count + get_threads() - 1) / get_threads();
  run_chunks(count, std::max(share, least_chunk(cycles_per_item)), cycles_per_item, body);
}

}  // namespace patchcut
