#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace patchcut {

namespace nb = nanobind;

// Contiguous arrays on the CPU; the Python face has checked shapes and types.
template <class T, int dimensions>
using Array = nb::ndarray<T, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

template <class T, int dimensions>
using Input = Array<const T, dimensions>;

void bind_preprocess(nb::module_& module);
void bind_nodes(nb::module_& module);
void bind_masks(nb::module_& module);

}  // namespace patchcut
