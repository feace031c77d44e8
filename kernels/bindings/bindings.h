#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "patchcut/patchcut.h"

namespace patchcut {

namespace nb = nanobind;

// Contiguous, and where the context says; the Python face has checked shapes, types and devices.
template <class T, int dimensions>
using Array = nb::ndarray<T, nb::ndim<dimensions>, nb::c_contig>;

template <class T, int dimensions>
using Input = Array<const T, dimensions>;

// float32 or float16, see dtype_of.
template <int dimensions>
using FloatInput = nb::ndarray<nb::ro, nb::ndim<dimensions>, nb::c_contig>;

template <int dimensions>
using FloatArray = nb::ndarray<nb::ndim<dimensions>, nb::c_contig>;

template <class AnyArray>
int32_t dtype_of(const AnyArray& array) {
  return array.dtype().bits == 16 ? PATCHCUT_FLOAT16 : PATCHCUT_FLOAT32;
}

template <class AnyArray>
int64_t extent(const AnyArray& array, int dimension) {
  return static_cast<int64_t>(array.shape(dimension));
}

template <class OptionalArray>
auto data_or_null(const OptionalArray& array) {
  return array ? array->data() : nullptr;
}

// Raises the status as an exception of Python.
void raise_on(patchcut_status status);

// Whether this is the thread that Python runs signal handlers on.
bool on_main_thread();

// For patchcut_context: runs the handlers of signals that have come, on the thread whose PyThreadState*
// `data` points to. Gives 1 where one of them raised, which is then that thread's exception.
int32_t hear_signals(void* data);

// Gives the GIL back for a scope. A thread that Python ends while it waits for the GIL would unwind through
// our frames, which ends the process: once the interpreter is ending, a thread waits here until the process
// is gone.
class WithoutGil {
 public:
  WithoutGil();
  ~WithoutGil();
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* thread_;
};

// Calls into the library without the GIL.
template <class Call>
void run(const Call& call) {
  patchcut_status status;
  {
    const WithoutGil without_gil;
    status = call();
  }
  raise_on(status);
}

// The same of an op. On Python's main thread signals are heard meanwhile: where a handler raises, such as
// that of Ctrl-C, the op ends, and the exception goes on.
template <class Call>
void run(const patchcut_context& context, const Call& call) {
  if (!on_main_thread()) return run([&] { return call(&context); });
  patchcut_context asked = context;
  PyThreadState* thread = PyEval_SaveThread();
  asked.interrupted = &hear_signals;
  asked.interrupt_data = &thread;
  const patchcut_status status = call(&asked);
  PyEval_RestoreThread(thread);
  raise_on(status);
}

// Each group also binds the enums that it brings to the C face; their members are the Python face's words.
void bind_clusters(nb::module_& module);
void bind_cuda(nb::module_& module);
void bind_cuts(nb::module_& module);
void bind_fit(nb::module_& module);
void bind_images(nb::module_& module);
void bind_masks(nb::module_& module);
void bind_nodes(nb::module_& module);
void bind_refine(nb::module_& module);
void bind_video(nb::module_& module);

}  // namespace patchcut
