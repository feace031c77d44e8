// Work that needs what all blocks of a kernel have written, without a kernel of its own.
#pragma once

#include "cuda/launch.cuh"

namespace patchcut {

struct LastBlockShared {
  bool is_last;
};

// Whether the calling block is the last of `blocks` to get here; it then sees what the others wrote before.
// Called by all threads. *arrived is 0 before the kernel and after it.
__device__ inline bool is_last_block(int* arrived, int blocks) {
  auto& shared = shared_memory<LastBlockShared>();
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared.is_last = atomicAdd(arrived, 1) == blocks - 1;
    if (shared.is_last) *arrived = 0;
  }
  __syncthreads();
  const bool is_last = shared.is_last;
  __threadfence();
  __syncthreads();  // the memory may be used again
  return is_last;
}

}  // namespace patchcut
