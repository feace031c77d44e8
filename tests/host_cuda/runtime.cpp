#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "block.h"
#include "cuda_runtime.h"
#include "testing.h"

using Operation = std::function<cudaError_t()>;

struct CUgraph_st {
  std::vector<Operation> operations;
};
struct CUgraphExec_st {
  std::vector<Operation> operations;
};
struct CUstream_st {
  CUgraph_st* capture = nullptr;
  bool invalidated = false;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
  bool recorded = false;
};

namespace {

std::mutex mutex;
std::map<const char*, size_t> allocations;       // of the device
std::map<const char*, size_t> host_allocations;  // that a graph may copy from and to
int64_t copies[3];
std::string last_failure;
int captures;
thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

bool is_own(cudaStream_t stream) { return reinterpret_cast<uintptr_t>(stream) > 2; }

// Does `operation` now, or keeps it where the stream is being captured.
cudaError_t submit(cudaStream_t stream, Operation operation) {
  if (is_own(stream) && stream->capture != nullptr) {
    stream->capture->operations.push_back(std::move(operation));
    return cudaSuccess;
  }
  return remember(operation());
}

// What waits for the device may not be called while a stream is being captured.
cudaError_t synchronize() { return captures > 0 ? remember(cudaErrorStreamCaptureUnsupported) : cudaSuccess; }

bool lies_in(const std::map<const char*, size_t>& blocks, const void* memory) {
  const char* const address = static_cast<const char*>(memory);
  const auto after = blocks.upper_bound(address);
  return after != blocks.begin() && address < std::prev(after)->first + std::prev(after)->second;
}

// What may wait for the device is refused while a stream is captured, unless this thread says that it may
// not.
bool may_allocate() { return captures == 0 || capture_mode == cudaStreamCaptureModeRelaxed; }

cudaError_t allocate(void** memory, size_t bytes, std::map<const char*, size_t>* blocks) {
  if (!may_allocate()) return remember(cudaErrorStreamCaptureUnsupported);
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (posix_memalign(memory, 256, bytes) != 0) return remember(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xff, bytes);
  const std::lock_guard<std::mutex> lock(mutex);
  (*blocks)[static_cast<const char*>(*memory)] = bytes;
  return cudaSuccess;
}

cudaError_t release(void* memory, std::map<const char*, size_t>* blocks) {
  if (memory == nullptr) return cudaSuccess;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (blocks->erase(static_cast<const char*>(memory)) == 0) return remember(cudaErrorInvalidValue);
  }
  std::free(memory);
  return cudaSuccess;
}

cudaError_t copy_now(void* to, const void* from, size_t bytes) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const bool there = lies_in(allocations, to), here = lies_in(allocations, from);
    if (there || here) ++copies[there && here ? kOnDevice : there ? kUp : kDown];
  }
  std::memmove(to, from, bytes);
  return cudaSuccess;
}

// Whether a graph may copy there: what is not locked in memory cannot be read while nobody waits.
bool is_locked(const void* memory) {
  const std::lock_guard<std::mutex> lock(mutex);
  return lies_in(allocations, memory) || lies_in(host_allocations, memory);
}

cudaError_t launch_now(dim3 grid, dim3 block, const std::function<void()>& thread) {
  const std::string wrong =
      host_cuda::run_grid({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, thread);
  if (wrong.empty()) return cudaSuccess;
  std::fprintf(stderr, "host_cuda: %s\n", wrong.c_str());
  const std::lock_guard<std::mutex> lock(mutex);
  last_failure = wrong;
  return cudaErrorLaunchFailure;
}

}  // namespace

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    default:
      return "cudaErrorInvalidValue";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? last_failure.c_str() : cudaGetErrorName(error);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : remember(cudaErrorInvalidDevice); }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return remember(cudaErrorInvalidDevice);
  *properties = {"host", 7, 5, 4};
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

// Each allocation is one of the host, filled with NaN: a sanitizer sees what goes past it.
cudaError_t cudaMalloc(void** memory, size_t bytes) { return allocate(memory, bytes, &allocations); }

cudaError_t cudaFree(void* memory) { return release(memory, &allocations); }

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  return allocate(memory, bytes, &host_allocations);
}

cudaError_t cudaFreeHost(void* memory) { return release(memory, &host_allocations); }

cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t) { return cudaMalloc(memory, bytes); }

cudaError_t cudaFreeAsync(void* memory, cudaStream_t) { return cudaFree(memory); }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (is_own(stream) && stream->capture != nullptr && !(is_locked(to) && is_locked(from))) {
    return remember(cudaErrorStreamCaptureUnsupported);
  }
  return submit(stream, [=] { return copy_now(to, from, bytes); });
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  return submit(stream, [=] {
    std::memset(memory, value, bytes);
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  const std::lock_guard<std::mutex> lock(mutex);
  const bool inside = lies_in(allocations, memory);
  const bool locked = lies_in(host_allocations, memory);
  *attributes = {inside   ? cudaMemoryTypeDevice
                 : locked ? cudaMemoryTypeHost
                          : cudaMemoryTypeUnregistered,
                 inside ? 0 : -1};
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() { return synchronize(); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st();
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return synchronize(); }

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const bool active = is_own(stream) && stream->capture != nullptr;
  *status = active ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!is_own(stream)) return remember(cudaErrorStreamCaptureUnsupported);
  stream->capture = new CUgraph_st();
  ++captures;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, capture_mode);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!is_own(stream) || stream->capture == nullptr) return remember(cudaErrorIllegalState);
  *graph = std::exchange(stream->capture, nullptr);
  --captures;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t graph, unsigned long long) {
  *instance = new CUgraphExec_st{graph->operations};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t stream) {
  for (const Operation& operation : instance->operations) {
    const cudaError_t error = submit(stream, operation);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance) {
  delete instance;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return submit(stream, [=] {
    event->time = std::chrono::steady_clock::now();
    event->recorded = true;
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t) { return synchronize(); }

cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  if (!begin->recorded || !end->recorded) return remember(cudaErrorInvalidResourceHandle);
  *ms = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}

cudaError_t host_cuda_launch(dim3 grid, dim3 block, cudaStream_t stream, std::function<void()> thread) {
  return submit(stream, [=] { return launch_now(grid, block, thread); });
}

void patchcut_host_cuda_copies(int64_t* counts) {
  const std::lock_guard<std::mutex> lock(mutex);
  std::copy(std::begin(copies), std::end(copies), counts);
}

void patchcut_host_cuda_call(void* stream, void (*function)(void)) {
  submit(static_cast<cudaStream_t>(stream), [=] {
    function();
    return cudaSuccess;
  });
}
