#include "patchcut/cuda.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bindings.h"

namespace patchcut {
namespace {

int32_t device_count() {
  int32_t count = 0;
  const patchcut_status status = patchcut_cuda_device_count(&count);
  if (status != PATCHCUT_UNAVAILABLE) raise_on(status);
  return count;
}

std::string why_unavailable() {
  int32_t count = 0;
  return patchcut_cuda_device_count(&count) == PATCHCUT_OK ? "" : patchcut_last_error();
}

#if PATCHCUT_WITH_CUDA

using Handle = uintptr_t;

void* as_pointer(Handle handle) { return reinterpret_cast<void*>(handle); }

// A handle that `make` writes.
template <class Make>
Handle made(const Make& make) {
  void* handle = nullptr;
  run([&] { return make(&handle); });
  return reinterpret_cast<Handle>(handle);
}

std::string device_name(int32_t device) {
  char name[256];
  run([&] { return patchcut_cuda_device_name(device, name, sizeof(name)); });
  return name;
}

int32_t compute_capability(int32_t device) {
  int32_t capability = 0;
  run([&] { return patchcut_cuda_compute_capability(device, &capability); });
  return capability;
}

int32_t device_of(Handle memory) {
  int32_t device = -1;
  raise_on(patchcut_cuda_device_of(as_pointer(memory), &device));
  return device;
}

float elapsed_ms(int32_t device, Handle begin, Handle end) {
  float ms = 0.0f;
  run([&] { return patchcut_cuda_event_elapsed_ms(device, as_pointer(begin), as_pointer(end), &ms); });
  return ms;
}

// Memory of a device as an array that ops and DLPack take; it keeps `owner`.
nb::ndarray<> lend(Handle memory, const std::vector<size_t>& shape, const std::vector<int64_t>& strides,
                   const std::string& kind, int bits, int32_t device, nb::handle owner) {
  const auto code = static_cast<uint8_t>(kind == "f"   ? nb::dlpack::dtype_code::Float
                                         : kind == "i" ? nb::dlpack::dtype_code::Int
                                         : kind == "b" ? nb::dlpack::dtype_code::Bool
                                                       : nb::dlpack::dtype_code::UInt);
  const nb::dlpack::dtype dtype{code, static_cast<uint8_t>(bits), 1};
  return nb::ndarray<>(as_pointer(memory), shape.size(), shape.data(), owner, strides.data(), dtype,
                       nb::device::cuda::value, device);
}

// Address, shape, strides in elements, (kind, bits), device, whether it may be written, and what keeps it.
template <class AnyArray>
nb::tuple borrowed(const AnyArray& array, bool writable) {
  nb::list shape, strides;
  for (size_t i = 0; i < array.ndim(); ++i) {
    shape.append(array.shape(i));
    strides.append(array.stride(i));
  }
  const auto code = static_cast<nb::dlpack::dtype_code>(array.dtype().code);
  const char* kind = code == nb::dlpack::dtype_code::Float  ? "f"
                     : code == nb::dlpack::dtype_code::Int  ? "i"
                     : code == nb::dlpack::dtype_code::UInt ? "u"
                     : code == nb::dlpack::dtype_code::Bool
                         ? "b"
                         : throw nb::type_error("its dtype is not of numpy");
  return nb::make_tuple(reinterpret_cast<Handle>(array.data()), nb::tuple(shape), nb::tuple(strides),
                        nb::make_tuple(kind, array.dtype().bits), array.device_id(), writable, array);
}

// One that takes (device, handles...) and gives nothing back.
template <class... Handles>
auto call(patchcut_status (*function)(int32_t, Handles...)) {
  return [function](int32_t device, decltype(reinterpret_cast<Handle>(Handles{}))... handles) {
    run([&] { return function(device, as_pointer(handles)...); });
  };
}

void bind_memory(nb::module_& module) {
  module.def("device_name", &device_name);
  module.def("compute_capability", &compute_capability);
  module.def("device_of", &device_of);
  module.def("last_workspace_bytes", [] {
    int64_t bytes = 0;
    raise_on(patchcut_cuda_last_workspace(&bytes));
    return bytes;
  });
  module.def("allocate", [](int32_t device, int64_t bytes, Handle stream) {
    return made([&](void** m) { return patchcut_cuda_allocate(device, bytes, as_pointer(stream), m); });
  });
  module.def("free", call(&patchcut_cuda_free));
  module.def("host_allocate", [](int32_t device, int64_t bytes) {
    return made([&](void** memory) { return patchcut_cuda_host_allocate(device, bytes, memory); });
  });
  module.def("host_free", call(&patchcut_cuda_host_free));
  module.def("copy", [](int32_t device, Handle to, Handle from, int64_t bytes, Handle stream) {
    run([&] {
      return patchcut_cuda_copy(device, as_pointer(to), as_pointer(from), bytes, as_pointer(stream));
    });
  });
  module.def("lend", &lend);
  module.def("borrow", [](const nb::ndarray<>& array) { return borrowed(array, true); });
  module.def("borrow", [](const nb::ndarray<nb::ro>& array) { return borrowed(array, false); });
}

void bind_streams(nb::module_& module) {
  module.def("stream_create", [](int32_t device) {
    return made([&](void** stream) { return patchcut_cuda_stream_create(device, stream); });
  });
  module.def("stream_destroy", call(&patchcut_cuda_stream_destroy));
  module.def("stream_synchronize", call(&patchcut_cuda_stream_synchronize));
  module.def("stream_wait", call(&patchcut_cuda_stream_wait));
  module.def("event_create", [](int32_t device) {
    return made([&](void** event) { return patchcut_cuda_event_create(device, event); });
  });
  module.def("event_destroy", call(&patchcut_cuda_event_destroy));
  module.def("event_record", call(&patchcut_cuda_event_record));
  module.def("event_synchronize", call(&patchcut_cuda_event_synchronize));
  module.def("event_elapsed_ms", &elapsed_ms);
  module.def("capture_begin", call(&patchcut_cuda_capture_begin));
  module.def("capture_end", [](int32_t device, Handle stream) {
    return made([&](void** graph) { return patchcut_cuda_capture_end(device, as_pointer(stream), graph); });
  });
  module.def("graph_memory_begin", [](int32_t device, Handle stream) {
    return made([&](void** m) { return patchcut_cuda_graph_memory_begin(device, as_pointer(stream), m); });
  });
  module.def("graph_memory_end", call(&patchcut_cuda_graph_memory_end));
  module.def("graph_memory_destroy", call(&patchcut_cuda_graph_memory_destroy));
  module.def("graph_launch", call(&patchcut_cuda_graph_launch));
  module.def("graph_destroy", call(&patchcut_cuda_graph_destroy));
}

#endif

}  // namespace

void bind_cuda(nb::module_& module) {
  nb::module_ cuda = module.def_submodule("cuda", "Device memory, streams, events and graphs.");
  cuda.def("device_count", &device_count);
  cuda.def("why_unavailable", &why_unavailable);
#if PATCHCUT_WITH_CUDA
  bind_memory(cuda);
  bind_streams(cuda);
#endif
}

}  // namespace patchcut
