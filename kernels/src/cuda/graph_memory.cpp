#include "cuda/graph_memory.h"

#include <algorithm>
#include <mutex>

#include "cuda/runtime_calls.h"

namespace patchcut {
namespace {

constexpr size_t kAlignment = 256;

std::mutex mutex;  // of what follows, and of what each of them holds
std::vector<GraphMemory*>& all() {
  static auto* const list = new std::vector<GraphMemory*>();  // used while the process ends
  return *list;
}

// CUDA refuses to allocate while this thread captures, since that may wait for the device: here it may.
class AllowedWhileCapturing {
 public:
  AllowedWhileCapturing() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~AllowedWhileCapturing() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  AllowedWhileCapturing(const AllowedWhileCapturing&) = delete;
  AllowedWhileCapturing& operator=(const AllowedWhileCapturing&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace

GraphMemory::GraphMemory(cudaStream_t stream) : stream_(stream) {
  require(of(stream) == nullptr, "cuda", "a stream must have one graph's memory at a time, it has one");
  const std::lock_guard<std::mutex> lock(mutex);
  all().push_back(this);
}

GraphMemory::~GraphMemory() {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    all().erase(std::find(all().begin(), all().end(), this));
  }
  const AllowedWhileCapturing allowed;
  for (const auto& [memory, bytes] : blocks_) cudaFree(memory);
}

void GraphMemory::end() {
  const std::lock_guard<std::mutex> lock(mutex);
  stream_ = nullptr;
  free_.clear();
}

void* GraphMemory::take(const char* op, size_t bytes) {
  const size_t needed = std::max<size_t>(1, (bytes + kAlignment - 1) / kAlignment) * kAlignment;
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto fitting = free_.lower_bound(needed); fitting != free_.end()) {
    void* const memory = fitting->second;
    free_.erase(fitting);
    return memory;
  }
  void* memory = nullptr;
  const AllowedWhileCapturing allowed;
  check_cuda(op, "cudaMalloc", cudaMalloc(&memory, needed));
  blocks_[memory] = needed;
  return memory;
}

GraphMemory* GraphMemory::of(cudaStream_t stream) {
  if (stream == nullptr) return nullptr;  // the legacy default stream cannot be captured
  const std::lock_guard<std::mutex> lock(mutex);
  for (GraphMemory* const each : all()) {
    if (each->stream_ == stream) return each;
  }
  return nullptr;
}

bool GraphMemory::give_back(void* memory) {
  const std::lock_guard<std::mutex> lock(mutex);
  for (GraphMemory* const each : all()) {
    const auto found = each->blocks_.find(memory);
    if (found == each->blocks_.end()) continue;
    if (each->stream_ != nullptr) each->free_.emplace(found->second, memory);
    return true;
  }
  return false;
}

}  // namespace patchcut
