#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.h"

namespace patchcut {

void raise_on(patchcut_status status) {
  const char* text = patchcut_last_error();
  switch (status) {
    case PATCHCUT_OK:
      return;
    case PATCHCUT_INVALID_ARGUMENT:
      throw nb::value_error(text);
    case PATCHCUT_OUT_OF_MEMORY:
      throw std::bad_alloc();
    case PATCHCUT_INTERRUPTED:
      throw nb::python_error();  // what the signal's handler raised
    default:
      throw std::runtime_error(text);
  }
}

namespace {

std::atomic<unsigned long> main_thread{0};

// A child's only thread is its main one, whichever thread forked.
void note_main_thread() { main_thread.store(PyThread_get_thread_ident()); }

void find_main_thread() {
  const nb::object thread = nb::module_::import_("threading").attr("main_thread")();
  main_thread.store(nb::cast<unsigned long>(thread.attr("ident")));
  pthread_atfork(nullptr, nullptr, note_main_thread);
}

}  // namespace

bool on_main_thread() { return PyThread_get_thread_ident() == main_thread.load(std::memory_order_relaxed); }

int32_t hear_signals(void* data) {
  auto* thread = static_cast<PyThreadState**>(data);
  PyEval_RestoreThread(*thread);
  const int raised = PyErr_CheckSignals();
  *thread = PyEval_SaveThread();
  return raised != 0;
}

namespace {

// Which thread ends the interpreter; 0 before.
std::atomic<unsigned long> ending_thread{0};
// Threads that may be waiting for the GIL at this moment.
std::atomic<int> returning{0};

// Called by Python's atexit: until those that wait have the GIL, and with it go on in Python.
void end_calls() {
  ending_thread.store(PyThread_get_thread_ident());
  PyThreadState* thread = PyEval_SaveThread();
  for (int waited_ms = 0; returning.load() != 0 && waited_ms < 5000; ++waited_ms) usleep(1000);
  PyEval_RestoreThread(thread);
}

void forget_other_threads() { returning.store(0); }

}  // namespace

WithoutGil::WithoutGil() : thread_(PyEval_SaveThread()) {}

WithoutGil::~WithoutGil() {
  returning.fetch_add(1);
  const unsigned long ending = ending_thread.load();
  if (ending != 0 && ending != PyThread_get_thread_ident()) {
    returning.fetch_sub(1);
    for (;;) pause();
  }
  PyEval_RestoreThread(thread_);
  returning.fetch_sub(1);
}

namespace {

int32_t default_threads(const std::string& root) {
  int32_t count = 0;
  raise_on(patchcut_default_threads(root.c_str(), &count));
  return count;
}

int32_t get_threads() {
  int32_t count = 0;
  run([&] { return patchcut_get_threads(&count); });
  return count;
}

void set_threads(int32_t count) {
  run([&] { return patchcut_set_threads(count); });
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  while (const char* name = patchcut_available_isa(static_cast<int32_t>(names.size())))
    names.emplace_back(name);
  return names;
}

std::string get_isa() {
  const char* name = nullptr;
  raise_on(patchcut_get_isa(&name));
  return name;
}

void set_isa(const std::string& name) { raise_on(patchcut_set_isa(name.c_str())); }

void bind_context(nb::module_& module) {
  nb::enum_<patchcut_device_type>(module, "DeviceType")
      .value("cpu", PATCHCUT_CPU)
      .value("cuda", PATCHCUT_CUDA);
  nb::class_<patchcut_context>(module, "Context")
      .def("__init__", [](patchcut_context* self, patchcut_device_type device_type, int32_t device_index,
                          uintptr_t stream, uintptr_t workspace, int64_t workspace_bytes) {
        new (self) patchcut_context{device_type,
                                    device_index,
                                    reinterpret_cast<void*>(stream),
                                    reinterpret_cast<void*>(workspace),
                                    workspace_bytes,
                                    nullptr,
                                    nullptr};
      });
}

}  // namespace
}  // namespace patchcut

NB_MODULE(_C, module) {
  using namespace patchcut;
  pthread_atfork(nullptr, nullptr, forget_other_threads);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&end_calls));
  // A daemon thread still holds its objects when the interpreter ends: that is no leak.
  nb::set_leak_warnings(false);
  find_main_thread();
  module.def("default_threads", &default_threads, nb::arg("root"));
  module.def("get_threads", &get_threads);
  module.def("set_threads", &set_threads);
  module.def("available_isas", &available_isas,
             "Instruction sets that this build holds and this machine can run, slowest first.");
  module.def("get_isa", &get_isa, "The instruction set in use: PATCHCUT_ISA, else the fastest available.");
  module.def("set_isa", &set_isa, "Chooses one of available_isas().");
  bind_context(module);
  bind_cuda(module);
  bind_cuts(module);
  bind_images(module);
  bind_nodes(module);
  bind_clusters(module);
  bind_masks(module);
  bind_refine(module);
  bind_fit(module);
  bind_video(module);
}
