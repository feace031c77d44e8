#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "bindings.h"
#include "patchcut/affinity.h"
#include "patchcut/gcn_forward.h"

namespace patchcut {
namespace {

void affinity(const Input<float, 3>& features, const Array<float, 3>& out,
              const std::optional<Array<float, 2>>& degrees, bool cosine, bool signed_mode, float threshold,
              float alpha) {
  const AffinityParams params{
      cosine, signed_mode ? AffinityMode::kCorrelationClustering : AffinityMode::kNCut, threshold, alpha};
  const int64_t n = static_cast<int64_t>(features.shape(1));
  const int64_t d = static_cast<int64_t>(features.shape(2));
  nb::gil_scoped_release release;
  for (int64_t b = 0; b < static_cast<int64_t>(features.shape(0)); ++b) {
    affinity_cpu(features.data() + b * n * d, n, d, params, out.data() + b * n * n,
                 degrees ? degrees->data() + b * n : nullptr);
  }
}

using Matrix = Input<float, 2>;
using Vector = Input<float, 1>;
using LayerTuple = std::tuple<Matrix, std::optional<Matrix>, Vector>;
using LinearTuple = std::tuple<Matrix, Vector>;

// An instance may outlive the arrays it was made of.
struct Packed {
  std::shared_ptr<const PackedGcn> weights;
};

Packed pack(bool normalize, const Vector& shift, const Vector& scale, const std::vector<LayerTuple>& layers,
            const std::vector<LinearTuple>& mlp, float temperature) {
  GcnWeights weights{normalize,  static_cast<int64_t>(shift.shape(0)), shift.data(), scale.data(), {}, {},
                     temperature};
  for (const auto& [theta, root, bias] : layers) {
    weights.layers.push_back({theta.data(), root ? root->data() : nullptr, bias.data(),
                              static_cast<int64_t>(theta.shape(0)), static_cast<int64_t>(theta.shape(1))});
  }
  for (const auto& [weight, bias] : mlp) {
    weights.mlp.push_back({weight.data(), bias.data(), static_cast<int64_t>(weight.shape(0)),
                           static_cast<int64_t>(weight.shape(1))});
  }
  nb::gil_scoped_release release;
  return {pack_gcn(weights)};
}

void gcn_forward(const Input<float, 3>& features, const std::optional<Input<float, 3>>& affinity,
                 const std::optional<Input<float, 2>>& degrees, const Array<float, 3>& out,
                 const Packed& packed) {
  const int64_t n = static_cast<int64_t>(features.shape(1));
  const int64_t d = static_cast<int64_t>(features.shape(2));
  const int64_t k = static_cast<int64_t>(out.shape(2));
  nb::gil_scoped_release release;
  for (int64_t b = 0; b < static_cast<int64_t>(features.shape(0)); ++b) {
    gcn_forward_cpu(features.data() + b * n * d, affinity ? affinity->data() + b * n * n : nullptr,
                    degrees ? degrees->data() + b * n : nullptr, n, d, *packed.weights,
                    out.data() + b * n * k);
  }
}

}  // namespace

void bind_nodes(nb::module_& module) {
  module.def("affinity", &affinity, nb::arg("features"), nb::arg("out"), nb::arg("degrees").none(),
             nb::arg("cosine"), nb::arg("signed_mode"), nb::arg("threshold"), nb::arg("alpha"));
  nb::class_<Packed>(module, "PackedGcn")
      .def("__init__",
           [](Packed* self, bool normalize, const Vector& shift, const Vector& scale,
              const std::vector<LayerTuple>& layers, const std::vector<LinearTuple>& mlp, float temperature) {
             new (self) Packed(pack(normalize, shift, scale, layers, mlp, temperature));
           })
      .def_prop_ro("isa", [](const Packed& packed) { return isa_of(*packed.weights); });
  module.def("gcn_forward", &gcn_forward, nb::arg("features"), nb::arg("affinity").none(),
             nb::arg("degrees").none(), nb::arg("out"), nb::arg("weights"));
}

}  // namespace patchcut
