// What every CUDA kernel here is written with. The tests compile the same sources for the host, where the
// threads of a block take turns (tests/host_cuda): kernels keep to this header and to the CUDA functions that
// stand in that folder's cuda_runtime.h, and blocks never wait for one another.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/queue.h"
#include "cuda/runtime_calls.h"

namespace patchcut {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

template <class Integer>
constexpr __host__ __device__ Integer ceil_div(Integer a, Integer b) {
  return (a + b - 1) / b;
}

// kernel<<<grid, block>>>(arguments...) on the queue; nothing where the grid has no block or the queue only
// counts. `block` is a number of whole warps.
template <class... Parameters, class... Arguments>
void launch(CudaQueue& queue, void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  constexpr unsigned kMaxBlocks = 65535;  // of blocks in the y and z directions
  require(grid.y <= kMaxBlocks && grid.z <= kMaxBlocks, queue.op(),
          "a batch must have at most 65535 items on CUDA");
  if (queue.only_counts() || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#if PATCHCUT_HOST_CUDA
  const cudaError_t status =
      host_cuda_launch(grid, block, queue.stream(), [=] { kernel(static_cast<Parameters>(arguments)...); });
#else
  kernel<<<grid, block, 0, queue.stream()>>>(static_cast<Parameters>(arguments)...);
  const cudaError_t status = cudaGetLastError();
#endif
  check_cuda(queue.op(), "a kernel's launch", status);
}

// Memory that the threads of a block share, not initialised: one for each type, so that a kernel names a
// struct of its own. What lies in a type of the same name is the same memory.
template <class T>
__device__ __forceinline__ T& shared_memory() {
#if PATCHCUT_HOST_CUDA
  static const char key = 0;
  return *static_cast<T*>(host_cuda::shared_memory(&key, sizeof(T), alignof(T)));
#else
  __shared__ T memory;
  return memory;
#endif
}

// Calls body(element) with a value of the type that `dtype` names, for kernels that are templates of it.
template <class Body>
void with_float_type(int32_t dtype, const Body& body) {
  if (dtype == PATCHCUT_FLOAT16) {
    body(__half());
  } else {
    body(0.0f);
  }
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half(x);
}

// `count` neighbours in one access where the alignment allows.
template <class T, int count>
struct alignas(sizeof(T) * count < 16 ? sizeof(T) * count : 16) Pack {
  T values[count];
};

template <int count, class T>
__device__ __forceinline__ const Pack<T, count>& as_pack(const T* values) {
  return *reinterpret_cast<const Pack<T, count>*>(values);
}

template <int count, class T>
__device__ __forceinline__ Pack<T, count>& as_pack(T* values) {
  return *reinterpret_cast<Pack<T, count>*>(values);
}

// The same in every lane.
template <class T, class Operation>
__device__ __forceinline__ T reduce_warp(T value, const Operation& operation) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    value = operation(value, __shfl_xor_sync(kAllLanes, value, lanes));
  }
  return value;
}

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Max {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

template <class T>
struct BlockReduceShared {
  T of_warps[kWarp];
};

// The same in every thread of a block of `warps` whole warps, which all call it; always in the same order.
template <class T, class Operation>
__device__ __forceinline__ T reduce_warps(T value, int warps, const Operation& operation) {
  auto& shared = shared_memory<BlockReduceShared<T>>();
  const int thread = static_cast<int>(threadIdx.x);
  value = reduce_warp(value, operation);
  __syncthreads();  // the memory may still be read by a call before
  if (thread % kWarp == 0) shared.of_warps[thread / kWarp] = value;
  __syncthreads();
  T total = shared.of_warps[0];
  for (int warp = 1; warp < warps; ++warp) total = operation(total, shared.of_warps[warp]);
  return total;
}

// reduce_warps of a block of `threads` threads.
template <int threads, class T, class Operation>
__device__ T reduce_block(T value, const Operation& operation) {
  constexpr int kWarps = threads / kWarp;
  static_assert(threads % kWarp == 0 && kWarps <= kWarp);
  return reduce_warps(value, kWarps, operation);
}

}  // namespace patchcut
