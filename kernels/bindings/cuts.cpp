#include "bindings.h"

namespace patchcut {
namespace {

void ncut(const FloatInput<3>& features, patchcut_cut_graph graph, int64_t k, float threshold, float floor,
          float offset, int64_t iterations, uint64_t seed, const Array<float, 2>& eigenvalues,
          const Array<float, 3>& vectors, const Array<float, 2>& residuals, const patchcut_context& context) {
  const patchcut_ncut_params params{graph, threshold, floor, offset, iterations, seed};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_ncut(features.data(), dtype_of(features), extent(features, 0), extent(features, 1),
                         extent(features, 2), k, &params, eigenvalues.data(), vectors.data(),
                         residuals.data(), asked);
  });
}

void bipartition(const FloatInput<3>& features, patchcut_cut_graph graph, float threshold, float floor,
                 float offset, int64_t iterations, uint64_t seed, bool connected, const Array<bool, 3>& masks,
                 const Array<int32_t, 1>& seeds, const patchcut_context& context) {
  const patchcut_ncut_params params{graph, threshold, floor, offset, iterations, seed};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_bipartition(features.data(), dtype_of(features), extent(masks, 0), extent(masks, 1),
                                extent(masks, 2), extent(features, 2), connected, &params,
                                reinterpret_cast<uint8_t*>(masks.data()), seeds.data(), asked);
  });
}

}  // namespace

void bind_cuts(nb::module_& module) {
  nb::enum_<patchcut_cut_graph>(module, "CutGraph")
      .value("affinity", PATCHCUT_GRAPH_AFFINITY)
      .value("thresholded", PATCHCUT_GRAPH_THRESHOLDED)
      .value("binary", PATCHCUT_GRAPH_BINARY)
      .value("cosine", PATCHCUT_GRAPH_COSINE);
  module.def("ncut", &ncut);
  module.def("bipartition", &bipartition);
}

}  // namespace patchcut
