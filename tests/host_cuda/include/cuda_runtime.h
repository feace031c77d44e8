// Stands in for the CUDA runtime where kernels are run on the host, for tests: the part of it that they use.
#pragma once

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#include "../block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct uchar3 {
  unsigned char x, y, z;
};
struct alignas(4) uchar4 {
  unsigned char x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uchar3 make_uchar3(unsigned char x, unsigned char y, unsigned char z) { return {x, y, z}; }
inline uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) {
  return {x, y, z, w};
}

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
constexpr int warpSize = 32;

// Where the call stands: default arguments are evaluated at the caller.
#define HOST_CUDA_PLACE(name) \
  const char *file = __builtin_FILE(), int line = __builtin_LINE(), const char *function = name
#define HOST_CUDA_HERE \
  host_cuda::Place { function, file, line }

inline void __syncthreads(HOST_CUDA_PLACE("__syncthreads")) { host_cuda::sync_block(0, HOST_CUDA_HERE); }
inline int __syncthreads_count(int predicate, HOST_CUDA_PLACE("__syncthreads_count")) {
  return static_cast<int>(host_cuda::sync_block(predicate != 0, HOST_CUDA_HERE));
}
inline int __syncthreads_or(int predicate, HOST_CUDA_PLACE("__syncthreads_or")) {
  return host_cuda::sync_block(predicate != 0, HOST_CUDA_HERE) != 0;
}
inline int __syncthreads_and(int predicate, HOST_CUDA_PLACE("__syncthreads_and")) {
  return host_cuda::sync_block(predicate == 0, HOST_CUDA_HERE) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, HOST_CUDA_PLACE("__syncwarp")) {
  host_cuda::sync_warp(mask, 0, HOST_CUDA_HERE);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace host_cuda {

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// What lane `source` of the caller's segment of `width` lanes gave; its own value where that is outside.
template <class T>
T from_lane(unsigned mask, T value, int source, int width, const Place& place) {
  const uint64_t* values = sync_warp(mask, to_bits(value), place);
  const int first = lane_index() / width * width;
  if (source < first || source >= first + width) return value;
  if ((mask >> source & 1) == 0) fail(std::string(place.function) + " reads a lane that is not in its mask");
  return from_bits<T>(values[source]);
}

template <class T, class Operation>
T reduce_lanes(unsigned mask, T value, const Place& place, const Operation& operation) {
  const uint64_t* values = sync_warp(mask, to_bits(value), place);
  bool first = true;
  T result{};
  for (int lane = 0; lane < warpSize; ++lane) {
    if ((mask >> lane & 1) == 0) continue;
    result = first ? from_bits<T>(values[lane]) : operation(result, from_bits<T>(values[lane]));
    first = false;
  }
  return result;
}

}  // namespace host_cuda

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, HOST_CUDA_PLACE("__shfl_sync")) {
  const int first = host_cuda::lane_index() / width * width;
  return host_cuda::from_lane(mask, value, first + lane % width, width, HOST_CUDA_HERE);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, HOST_CUDA_PLACE("__shfl_up_sync")) {
  const int source = host_cuda::lane_index() - static_cast<int>(delta);
  return host_cuda::from_lane(mask, value, source, width, HOST_CUDA_HERE);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   HOST_CUDA_PLACE("__shfl_down_sync")) {
  const int source = host_cuda::lane_index() + static_cast<int>(delta);
  return host_cuda::from_lane(mask, value, source, width, HOST_CUDA_HERE);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, HOST_CUDA_PLACE("__shfl_xor_sync")) {
  return host_cuda::from_lane(mask, value, host_cuda::lane_index() ^ lanes, width, HOST_CUDA_HERE);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, HOST_CUDA_PLACE("__ballot_sync")) {
  const unsigned own = predicate != 0 ? 1u << host_cuda::lane_index() : 0u;
  return host_cuda::reduce_lanes(mask, own, HOST_CUDA_HERE, [](unsigned a, unsigned b) { return a | b; });
}
inline int __any_sync(unsigned mask, int predicate, HOST_CUDA_PLACE("__any_sync")) {
  const int own = predicate != 0;
  return host_cuda::reduce_lanes(mask, own, HOST_CUDA_HERE, [](int a, int b) { return a | b; });
}
inline int __all_sync(unsigned mask, int predicate, HOST_CUDA_PLACE("__all_sync")) {
  const int own = predicate != 0;
  return host_cuda::reduce_lanes(mask, own, HOST_CUDA_HERE, [](int a, int b) { return a & b; });
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, HOST_CUDA_PLACE("__match_any_sync")) {
  const uint64_t* values = host_cuda::sync_warp(mask, host_cuda::to_bits(value), HOST_CUDA_HERE);
  unsigned same = 0;
  for (int lane = 0; lane < warpSize; ++lane) {
    const bool equal = (mask >> lane & 1) != 0 && values[lane] == host_cuda::to_bits(value);
    if (equal) same |= 1u << lane;
  }
  return same;
}

// Threads of a block take turns by hand, so that plain reading and writing is atomic.
template <class T, class Operation>
T host_cuda_atomic(T* address, const Operation& operation) {
  const T old = *address;
  *address = operation(old);
  return old;
}
template <class T>
T atomicAdd(T* address, T value) {
  return host_cuda_atomic(address, [&](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicSub(T* address, T value) {
  return host_cuda_atomic(address, [&](T old) { return static_cast<T>(old - value); });
}
template <class T>
T atomicMin(T* address, T value) {
  return host_cuda_atomic(address, [&](T old) { return std::min(old, value); });
}
template <class T>
T atomicMax(T* address, T value) {
  return host_cuda_atomic(address, [&](T old) { return std::max(old, value); });
}
template <class T>
T atomicAnd(T* address, T value) {
  return host_cuda_atomic(address, [&](T old) { return static_cast<T>(old & value); });
}
template <class T>
T atomicOr(T* address, T value) {
  return host_cuda_atomic(address, [&](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicExch(T* address, T value) {
  return host_cuda_atomic(address, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* address, T compare, T value) {
  return host_cuda_atomic(address, [&](T old) { return old == compare ? value : old; });
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __saturatef(float x) { return std::fmin(std::fmax(x, 0.0f), 1.0f); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline double __longlong_as_double(long long x) {
  return host_cuda::from_bits<double>(host_cuda::to_bits(x));
}
inline int __float_as_int(float x) { return host_cuda::from_bits<int>(host_cuda::to_bits(x)); }
inline float __int_as_float(int x) { return host_cuda::from_bits<float>(host_cuda::to_bits(x)); }
inline unsigned __float_as_uint(float x) { return host_cuda::from_bits<unsigned>(host_cuda::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return host_cuda::from_bits<float>(host_cuda::to_bits(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;

// The runtime. Everything is done at once, but for what a stream that is being captured is given.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorIllegalState = 401,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice };
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone,
  cudaStreamCaptureStatusActive,
  cudaStreamCaptureStatusInvalidated
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
struct cudaDeviceProp {
  char name[256];
  int major, minor;
  int multiProcessorCount;
};
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
#define cudaStreamLegacy reinterpret_cast<cudaStream_t>(1)
#define cudaStreamPerThread reinterpret_cast<cudaStream_t>(2)
constexpr unsigned cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDisableTiming = 2;
constexpr unsigned cudaHostAllocPortable = 1;

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end);

// Stands in for kernel<<<grid, block, 0, stream>>>(...).
cudaError_t host_cuda_launch(dim3 grid, dim3 block, cudaStream_t stream, std::function<void()> thread);
