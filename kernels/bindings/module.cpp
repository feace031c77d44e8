#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"
#include "patchcut/isa.h"
#include "patchcut/threads.h"

NB_MODULE(_C, module) {
  module.def("get_threads", &patchcut::get_threads,
             "Threads that one op may use, the calling one included: PATCHCUT_THREADS, else min(cores, 4).");
  module.def("set_threads", &patchcut::set_threads,
             "Sets how many threads one op may use, 1 to 256; results do not depend on it.");
  module.def("available_isas", &patchcut::available_isas,
             "Instruction sets that this build holds and this machine can run, slowest first.");
  module.def("get_isa", &patchcut::get_isa,
             "The instruction set in use: PATCHCUT_ISA, else the fastest available.");
  module.def("set_isa", &patchcut::set_isa, "Chooses one of available_isas().");
  patchcut::bind_preprocess(module);
  patchcut::bind_nodes(module);
  patchcut::bind_masks(module);
}
