#include "cuda/queue.h"

#include <stdexcept>
#include <string>

#include "cuda/device_memory.h"
#include "cuda/graph_memory.h"
#include "cuda/runtime_calls.h"

namespace patchcut {
namespace {

constexpr size_t kAlignment = 256;

thread_local int64_t last_needed = 0;

// Device memory in the order of a stream; that of a graph where its stream is captured into one.
class StreamMemory {
 public:
  StreamMemory(const char* op, size_t bytes, cudaStream_t stream) : stream_(stream) {
    if (bytes != 0) data_ = take_memory(op, "workspace", bytes, stream);
  }
  ~StreamMemory() {
    if (data_ != nullptr) give_memory_back(data_, stream_);
  }
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;

  void* data() const { return data_; }

 private:
  cudaStream_t stream_;
  void* data_ = nullptr;
};

void require_workspace(const char* op, const patchcut_context& context, size_t needed) {
  const auto address = reinterpret_cast<uintptr_t>(context.workspace);
  require(address % kAlignment == 0, op, "workspace must be 256-byte aligned");
  require(context.workspace_bytes >= static_cast<int64_t>(needed), op,
          "workspace must have at least " + std::to_string(needed) + " bytes, got " +
              std::to_string(context.workspace_bytes));
}

}  // namespace

DeviceGuard::DeviceGuard(const char* op, int device) {
  check_cuda(op, "cudaGetDevice", cudaGetDevice(&before_));
  changed_ = before_ != device;
  if (changed_) check_cuda(op, "cudaSetDevice", cudaSetDevice(device));
}

DeviceGuard::~DeviceGuard() {
  if (changed_) cudaSetDevice(before_);
}

void require_device(const char* op, int index) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();
    int driver = 0;
    const bool installed = cudaDriverGetVersion(&driver) == cudaSuccess && driver != 0;
    throw Unavailable("[" + std::string(op) + "] CUDA needs a device and its driver, " +
                      (installed ? cudaGetErrorString(status) : "this machine has no NVIDIA driver"));
  }
  if (index < 0 || index >= count) {
    throw Unavailable("[" + std::string(op) + "] CUDA device must be 0 to " + std::to_string(count - 1) +
                      ", got " + std::to_string(index));
  }
}

void require_no_capture(const char* op, const char* what, cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(op, "cudaStreamIsCapturing", cudaStreamIsCapturing(stream, &status));
  require(status == cudaStreamCaptureStatusNone, op,
          std::string(what) + " must be given while the stream is captured: a graph must not allocate");
}

void* take_memory(const char* op, const char* what, size_t bytes, cudaStream_t stream) {
  if (GraphMemory* const of_graph = GraphMemory::of(stream)) return of_graph->take(op, bytes);
  require_no_capture(op, what, stream);
  void* memory = nullptr;
  check_cuda(op, "cudaMallocAsync", cudaMallocAsync(&memory, bytes, stream));
  return memory;
}

cudaError_t give_memory_back(void* memory, cudaStream_t stream) {
  return GraphMemory::give_back(memory) ? cudaSuccess : cudaFreeAsync(memory, stream);
}

DeviceMemory::DeviceMemory(const char* op, size_t bytes) {
  check_cuda(op, "cudaGetDevice", cudaGetDevice(&device_));
  check_cuda(op, "cudaMalloc", cudaMalloc(&data_, bytes));
}

DeviceMemory::~DeviceMemory() {
  int before = 0;
  cudaGetDevice(&before);
  cudaSetDevice(device_);
  cudaFree(data_);
  cudaSetDevice(before);
}

void* CudaQueue::take_bytes(size_t bytes) {
  const size_t begin = taken_;
  taken_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (only_counts_) return nullptr;
  if (taken_ > bytes_) throw std::logic_error("an op takes more workspace than it counted");
  return workspace_ + begin;
}

void CudaQueue::clear_bytes(void* memory, size_t bytes) {
  if (only_counts_ || bytes == 0) return;
  check_cuda(op_, "cudaMemsetAsync", cudaMemsetAsync(memory, 0, bytes, stream_));
}

int64_t last_workspace() { return last_needed; }

void run_queued(const char* op, const patchcut_context& context,
                const std::function<void(CudaQueue&)>& work) {
  require_device(op, context.device_index);
  const DeviceGuard device(op, context.device_index);
  CudaQueue counted(op);
  work(counted);
  const size_t needed = counted.bytes_taken();
  last_needed = static_cast<int64_t>(needed);
  const auto stream = static_cast<cudaStream_t>(context.stream);
  if (context.workspace != nullptr) {
    require_workspace(op, context, needed);
    CudaQueue queue(op, stream, context.workspace, needed);
    return work(queue);
  }
  const StreamMemory memory(op, needed, stream);
  CudaQueue queue(op, stream, memory.data(), needed);
  work(queue);
}

}  // namespace patchcut
