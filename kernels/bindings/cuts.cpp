#include <nanobind/stl/optional.h>

#include <optional>

#include "bindings.h"

namespace patchcut {
namespace {

void ncut(const FloatInput<3>& features, patchcut_cut_graph graph, int64_t k, float threshold, float floor,
          float offset, int64_t iterations, uint64_t seed, float tolerance,
          const std::optional<Input<float, 3>>& start, const Array<float, 2>& eigenvalues,
          const Array<float, 3>& vectors, const Array<float, 2>& residuals, const Array<int32_t, 1>& products,
          const patchcut_context& context) {
  const patchcut_ncut_params params{graph, threshold, floor, offset, iterations, seed, tolerance};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_ncut(features.data(), dtype_of(features), extent(features, 0), extent(features, 1),
                         extent(features, 2), k, data_or_null(start), &params, eigenvalues.data(),
                         vectors.data(), residuals.data(), products.data(), asked);
  });
}

void bipartition(const FloatInput<3>& features, patchcut_cut_graph graph, float threshold, float floor,
                 float offset, int64_t iterations, uint64_t seed, float tolerance, bool connected,
                 const std::optional<Input<float, 2>>& start, const Array<bool, 3>& masks,
                 const Array<int32_t, 1>& seeds, const std::optional<Array<float, 2>>& vectors,
                 const patchcut_context& context) {
  const patchcut_ncut_params params{graph, threshold, floor, offset, iterations, seed, tolerance};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_bipartition(features.data(), dtype_of(features), extent(masks, 0), extent(masks, 1),
                                extent(masks, 2), extent(features, 2), connected, data_or_null(start),
                                &params, reinterpret_cast<uint8_t*>(masks.data()), seeds.data(),
                                data_or_null(vectors), asked);
  });
}

}  // namespace

void bind_cuts(nb::module_& module) {
  nb::enum_<patchcut_cut_graph>(module, "CutGraph")
      .value("affinity", PATCHCUT_GRAPH_AFFINITY)
      .value("thresholded", PATCHCUT_GRAPH_THRESHOLDED)
      .value("binary", PATCHCUT_GRAPH_BINARY)
      .value("cosine", PATCHCUT_GRAPH_COSINE);
  module.def("ncut", &ncut, nb::arg("features"), nb::arg("graph"), nb::arg("k"), nb::arg("threshold"),
             nb::arg("floor"), nb::arg("offset"), nb::arg("iterations"), nb::arg("seed"),
             nb::arg("tolerance"), nb::arg("start").none(), nb::arg("eigenvalues"), nb::arg("vectors"),
             nb::arg("residuals"), nb::arg("products"), nb::arg("context"));
  module.def("bipartition", &bipartition, nb::arg("features"), nb::arg("graph"), nb::arg("threshold"),
             nb::arg("floor"), nb::arg("offset"), nb::arg("iterations"), nb::arg("seed"),
             nb::arg("tolerance"), nb::arg("connected"), nb::arg("start").none(), nb::arg("masks"),
             nb::arg("seeds"), nb::arg("vectors").none(), nb::arg("context"));
}

}  // namespace patchcut
