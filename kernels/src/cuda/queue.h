#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "patchcut/patchcut.h"

struct CUstream_st;  // cudaStream_t points to it

namespace patchcut {

// Where an op on CUDA takes its memory and queues its kernels (launch.cuh): one stream of the current device.
// An op runs twice: first on a queue that only counts the bytes it takes, hands out null and launches
// nothing.
class CudaQueue {
 public:
  explicit CudaQueue(const char* op) : CudaQueue(op, nullptr, nullptr, 0, true) {}
  CudaQueue(const char* op, CUstream_st* stream, void* workspace, size_t bytes)
      : CudaQueue(op, stream, workspace, bytes, false) {}

  // Not initialised, 256-byte aligned, valid until the op's last kernel has run.
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }

  // Fills with zeros.
  template <class T>
  void clear(T* values, int64_t count) {
    clear_bytes(values, static_cast<size_t>(count) * sizeof(T));
  }

  const char* op() const { return op_; }
  CUstream_st* stream() const { return stream_; }
  bool only_counts() const { return only_counts_; }
  size_t bytes_taken() const { return taken_; }

 private:
  CudaQueue(const char* op, CUstream_st* stream, void* workspace, size_t bytes, bool only_counts)
      : op_(op),
        stream_(stream),
        workspace_(static_cast<char*>(workspace)),
        bytes_(bytes),
        only_counts_(only_counts) {}

  void* take_bytes(size_t bytes);
  void clear_bytes(void* memory, size_t bytes);

  const char* op_;
  CUstream_st* stream_;
  char* workspace_;
  size_t bytes_;
  size_t taken_ = 0;
  bool only_counts_;
};

// On the context's device, stream and workspace. Throws Unavailable, CudaError, or std::invalid_argument for
// a workspace that is too small.
void run_queued(const char* op, const patchcut_context& context, const std::function<void(CudaQueue&)>& work);

// Bytes that this thread's last run_queued needed.
int64_t last_workspace();

}  // namespace patchcut
