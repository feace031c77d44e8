#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace patchcut {

// Memory of the device that is current when it is made, for what an op keeps between calls. Taking and giving
// back wait for the device: never in an op's call.
class DeviceMemory {
 public:
  DeviceMemory(const char* op, size_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* data() const { return data_; }

 private:
  int device_ = 0;
  void* data_ = nullptr;
};

}  // namespace patchcut
