#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "patchcut/isa.h"
#include "patchcut/threads.h"

NB_MODULE(_C, module) {
  using Release = nanobind::call_guard<nanobind::gil_scoped_release>;
  module.def("default_threads", &patchcut::default_threads, nanobind::arg("root"));
  module.def("get_threads", &patchcut::get_threads, Release());
  module.def("set_threads", &patchcut::set_threads, Release());
  module.def("available_isas", &patchcut::available_isas,
             "Instruction sets that this build holds and this machine can run, slowest first.");
  module.def("get_isa", &patchcut::get_isa,
             "The instruction set in use: PATCHCUT_ISA, else the fastest available.");
  module.def("set_isa", &patchcut::set_isa, "Chooses one of available_isas().");
  patchcut::bind_preprocess(module);
  patchcut::bind_nodes(module);
  patchcut::bind_masks(module);
}
