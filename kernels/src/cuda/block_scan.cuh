// Running sums over the threads of a block.
#pragma once

#include "cuda/launch.cuh"

namespace patchcut {

template <class T>
struct BlockScanShared {
  T of_warps[kWarp];
};

// The sum of the values of all threads before, and of all in *total. Always called by the whole block.
template <int threads, class T>
__device__ T sum_before(T value, T* total) {
  static_assert(threads % kWarp == 0 && threads / kWarp <= kWarp);
  auto& shared = shared_memory<BlockScanShared<T>>();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  T sum = value;
  for (int step = 1; step < kWarp; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, sum, step);
    if (lane >= step) sum += before;
  }
  __syncthreads();  // the memory may still be read by a call before
  if (lane == kWarp - 1) shared.of_warps[warp] = sum;
  __syncthreads();
  T before_warp = 0;
  *total = 0;
  for (int w = 0; w < threads / kWarp; ++w) {
    if (w < warp) before_warp += shared.of_warps[w];
    *total += shared.of_warps[w];
  }
  return before_warp + sum - value;
}

}  // namespace patchcut
