#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "patchcut/isa.h"
#include "patchcut/threads.h"

NB_MODULE(_C, module) {
  module.def("get_threads", &patchcut::get_threads);
  module.def("set_threads", &patchcut::set_threads);
  module.def("available_isas", &patchcut::available_isas);
  module.def("get_isa", &patchcut::get_isa);
  module.def("set_isa", &patchcut::set_isa);
  patchcut::bind_preprocess(module);
  patchcut::bind_nodes(module);
  patchcut::bind_masks(module);
}
