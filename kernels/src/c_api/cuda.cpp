#include "patchcut/cuda.h"

#include <algorithm>
#include <cstring>

#include "c_api/c_face.h"

#if PATCHCUT_WITH_CUDA

#include "cuda/graph_memory.h"
#include "cuda/queue.h"
#include "cuda/runtime_calls.h"

namespace patchcut {
namespace {

constexpr const char* kOp = "cuda";

void check(const char* call, cudaError_t status) { check_cuda(kOp, call, status); }

// Runs body with `device` current.
template <class Body>
patchcut_status on_device(int32_t device, const Body& body) {
  return guard([&] {
    require_device(kOp, device);
    const DeviceGuard current(kOp, device);
    body();
  });
}

cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t as_event(void* event) { return static_cast<cudaEvent_t>(event); }

class ScopedEvent {
 public:
  ScopedEvent() { check("cudaEventCreate", cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~ScopedEvent() { cudaEventDestroy(event_); }
  ScopedEvent(const ScopedEvent&) = delete;
  ScopedEvent& operator=(const ScopedEvent&) = delete;

  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace
}  // namespace patchcut

using namespace patchcut;

patchcut_status patchcut_cuda_device_count(int32_t* count) {
  *count = 0;
  return guard([&] {
    require_device(kOp, 0);
    int devices = 0;
    check("cudaGetDeviceCount", cudaGetDeviceCount(&devices));
    *count = devices;
  });
}

patchcut_status patchcut_cuda_device_name(int32_t device, char* name, int64_t bytes) {
  return on_device(device, [&] {
    require(bytes > 0, kOp, "name must have room for at least one byte");
    cudaDeviceProp properties;
    check("cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, device));
    const size_t length = std::min(std::strlen(properties.name), static_cast<size_t>(bytes) - 1);
    std::memcpy(name, properties.name, length);
    name[length] = '\0';
  });
}

patchcut_status patchcut_cuda_compute_capability(int32_t device, int32_t* capability) {
  return on_device(device, [&] {
    cudaDeviceProp properties;
    check("cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, device));
    *capability = 10 * properties.major + properties.minor;
  });
}

patchcut_status patchcut_cuda_device_of(const void* memory, int32_t* device) {
  return guard([&] {
    cudaPointerAttributes attributes;
    check("cudaPointerGetAttributes", cudaPointerGetAttributes(&attributes, memory));
    const bool on_host =
        attributes.type == cudaMemoryTypeUnregistered || attributes.type == cudaMemoryTypeHost;
    *device = on_host ? -1 : attributes.device;
  });
}

patchcut_status patchcut_cuda_last_workspace(int64_t* bytes) {
  *bytes = last_workspace();
  return PATCHCUT_OK;
}

patchcut_status patchcut_cuda_allocate(int32_t device, int64_t bytes, void* stream, void** memory) {
  return on_device(device, [&] {
    require_sizes(kOp, {bytes});
    *memory = take_memory(kOp, "memory", static_cast<size_t>(bytes), as_stream(stream));
  });
}

patchcut_status patchcut_cuda_free(int32_t device, void* memory, void* stream) {
  return on_device(device, [&] { check("cudaFreeAsync", give_memory_back(memory, as_stream(stream))); });
}

patchcut_status patchcut_cuda_host_allocate(int32_t device, int64_t bytes, void** memory) {
  return on_device(device, [&] {
    require_sizes(kOp, {bytes});
    check("cudaHostAlloc", cudaHostAlloc(memory, static_cast<size_t>(bytes), cudaHostAllocPortable));
  });
}

patchcut_status patchcut_cuda_host_free(int32_t device, void* memory) {
  return on_device(device, [&] { check("cudaFreeHost", cudaFreeHost(memory)); });
}

patchcut_status patchcut_cuda_copy(int32_t device, void* to, const void* from, int64_t bytes, void* stream) {
  return on_device(device, [&] {
    require_sizes(kOp, {bytes});
    check("cudaMemcpyAsync",
          cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, as_stream(stream)));
  });
}

patchcut_status patchcut_cuda_stream_create(int32_t device, void** stream) {
  return on_device(device, [&] {
    cudaStream_t made = nullptr;
    check("cudaStreamCreateWithFlags", cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
    *stream = made;
  });
}

patchcut_status patchcut_cuda_stream_destroy(int32_t device, void* stream) {
  return on_device(device, [&] { check("cudaStreamDestroy", cudaStreamDestroy(as_stream(stream))); });
}

patchcut_status patchcut_cuda_stream_synchronize(int32_t device, void* stream) {
  return on_device(device, [&] { check("cudaStreamSynchronize", cudaStreamSynchronize(as_stream(stream))); });
}

patchcut_status patchcut_cuda_stream_wait(int32_t device, void* stream, void* before) {
  return on_device(device, [&] {
    for (void* const each : {stream, before}) {
      cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
      check("cudaStreamIsCapturing", cudaStreamIsCapturing(as_stream(each), &status));
      if (status != cudaStreamCaptureStatusNone) return;
    }
    const ScopedEvent event;
    check("cudaEventRecord", cudaEventRecord(event.get(), as_stream(before)));
    check("cudaStreamWaitEvent", cudaStreamWaitEvent(as_stream(stream), event.get(), 0));
  });
}

patchcut_status patchcut_cuda_event_create(int32_t device, void** event) {
  return on_device(device, [&] {
    cudaEvent_t made = nullptr;
    check("cudaEventCreate", cudaEventCreateWithFlags(&made, 0));
    *event = made;
  });
}

patchcut_status patchcut_cuda_event_destroy(int32_t device, void* event) {
  return on_device(device, [&] { check("cudaEventDestroy", cudaEventDestroy(as_event(event))); });
}

patchcut_status patchcut_cuda_event_record(int32_t device, void* event, void* stream) {
  return on_device(device,
                   [&] { check("cudaEventRecord", cudaEventRecord(as_event(event), as_stream(stream))); });
}

patchcut_status patchcut_cuda_event_synchronize(int32_t device, void* event) {
  return on_device(device, [&] { check("cudaEventSynchronize", cudaEventSynchronize(as_event(event))); });
}

patchcut_status patchcut_cuda_event_elapsed_ms(int32_t device, void* begin, void* end, float* ms) {
  return on_device(device, [&] {
    check("cudaEventElapsedTime", cudaEventElapsedTime(ms, as_event(begin), as_event(end)));
  });
}

patchcut_status patchcut_cuda_capture_begin(int32_t device, void* stream) {
  return on_device(device, [&] {
    check("cudaStreamBeginCapture",
          cudaStreamBeginCapture(as_stream(stream), cudaStreamCaptureModeThreadLocal));
  });
}

patchcut_status patchcut_cuda_capture_end(int32_t device, void* stream, void** graph) {
  return on_device(device, [&] {
    cudaGraph_t captured = nullptr;
    check("cudaStreamEndCapture", cudaStreamEndCapture(as_stream(stream), &captured));
    cudaGraphExec_t instance = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&instance, captured, 0);
    cudaGraphDestroy(captured);
    check("cudaGraphInstantiate", status);
    *graph = instance;
  });
}

patchcut_status patchcut_cuda_graph_memory_begin(int32_t device, void* stream, void** memory) {
  return on_device(device, [&] { *memory = new GraphMemory(as_stream(stream)); });
}

patchcut_status patchcut_cuda_graph_memory_end(int32_t device, void* memory) {
  return on_device(device, [&] { static_cast<GraphMemory*>(memory)->end(); });
}

patchcut_status patchcut_cuda_graph_memory_destroy(int32_t device, void* memory) {
  return on_device(device, [&] { delete static_cast<GraphMemory*>(memory); });
}

patchcut_status patchcut_cuda_graph_launch(int32_t device, void* graph, void* stream) {
  return on_device(device, [&] {
    check("cudaGraphLaunch", cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), as_stream(stream)));
  });
}

patchcut_status patchcut_cuda_graph_destroy(int32_t device, void* graph) {
  return on_device(device, [&] {
    check("cudaGraphExecDestroy", cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
  });
}

#else

patchcut_status patchcut_cuda_device_count(int32_t* count) {
  *count = 0;
  return patchcut::guard([] { patchcut::throw_without_cuda("cuda"); });
}

#endif
