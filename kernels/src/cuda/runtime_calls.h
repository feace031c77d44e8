#pragma once

#include <cuda_runtime.h>

#include <string>

#include "cpu/errors.h"

namespace patchcut {

// Throws CudaError "[op] call: text (name)" unless the call succeeded.
inline void check_cuda(const char* op, const char* call, cudaError_t status) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else the next call would report it again
  throw CudaError("[" + std::string(op) + "] " + call + ": " + cudaGetErrorString(status) + " (" +
                  cudaGetErrorName(status) + ")");
}

// Makes a device current for one scope.
class DeviceGuard {
 public:
  DeviceGuard(const char* op, int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_;
  bool changed_;
};

// Throws Unavailable, with what is missing, unless CUDA device `index` can be used.
void require_device(const char* op, int index);

// Throws std::invalid_argument where a stream is being captured into a graph: `what` allocates.
void require_no_capture(const char* op, const char* what, cudaStream_t stream);

// Memory in the order of a stream; the graph's own while a stream with GraphMemory is captured. Throws where
// a stream without it is captured.
void* take_memory(const char* op, const char* what, size_t bytes, cudaStream_t stream);
cudaError_t give_memory_back(void* memory, cudaStream_t stream);

}  // namespace patchcut
