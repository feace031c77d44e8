#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings.h"

namespace patchcut {
namespace {

void affinity(const FloatInput<3>& features, const FloatArray<3>& out,
              const std::optional<Array<float, 2>>& degrees, patchcut_affinity_kind kind,
              patchcut_affinity_mode mode, float threshold, float alpha, const patchcut_context& context) {
  const patchcut_affinity_params params{kind, mode, threshold, alpha};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_affinity(features.data(), dtype_of(features), extent(features, 0), extent(features, 1),
                             extent(features, 2), &params, out.data(), dtype_of(out), data_or_null(degrees),
                             asked);
  });
}

using Matrix = Input<float, 2>;
using Vector = Input<float, 1>;
using LayerTuple = std::tuple<Matrix, std::optional<Matrix>, Vector>;
using LinearTuple = std::tuple<Matrix, Vector>;

// Keeps its own copy of the arrays it was made of.
class PackedGcn {
 public:
  PackedGcn(bool normalize, const Vector& shift, const Vector& scale, const std::vector<LayerTuple>& layers,
            const std::vector<LinearTuple>& mlp, float temperature, const patchcut_context& context) {
    std::vector<patchcut_gcn_layer> graph;
    std::vector<patchcut_linear_layer> linear;
    for (const auto& [theta, root, bias] : layers) {
      graph.push_back({theta.data(), data_or_null(root), bias.data(), extent(theta, 0), extent(theta, 1)});
    }
    for (const auto& [weight, bias] : mlp) {
      linear.push_back({weight.data(), bias.data(), extent(weight, 0), extent(weight, 1)});
    }
    const patchcut_gcn_weights weights{normalize,     extent(shift, 0),
                                       shift.data(),  scale.data(),
                                       graph.data(),  static_cast<int64_t>(graph.size()),
                                       linear.data(), static_cast<int64_t>(linear.size()),
                                       temperature};
    run(context, [&](const patchcut_context* asked) { return patchcut_gcn_create(&weights, &gcn_, asked); });
  }
  ~PackedGcn() { patchcut_gcn_destroy(gcn_); }
  PackedGcn(const PackedGcn&) = delete;
  PackedGcn& operator=(const PackedGcn&) = delete;

  const patchcut_gcn* get() const { return gcn_; }
  std::string isa() const { return patchcut_gcn_isa(gcn_); }

 private:
  patchcut_gcn* gcn_ = nullptr;
};

void gcn_forward(const FloatInput<3>& features, const std::optional<FloatInput<3>>& affinity,
                 const std::optional<Input<float, 2>>& degrees, const Array<float, 3>& out,
                 const PackedGcn& weights, const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_gcn_forward(features.data(), dtype_of(features), data_or_null(affinity),
                                affinity ? dtype_of(*affinity) : PATCHCUT_FLOAT32, data_or_null(degrees),
                                extent(features, 0), extent(features, 1), weights.get(), out.data(), asked);
  });
}

}  // namespace

void bind_nodes(nb::module_& module) {
  nb::enum_<patchcut_affinity_kind>(module, "AffinityKind")
      .value("cosine", PATCHCUT_COSINE)
      .value("dot", PATCHCUT_DOT);
  nb::enum_<patchcut_affinity_mode>(module, "AffinityMode")
      .value("ncut", PATCHCUT_NCUT)
      .value("cc", PATCHCUT_CC);
  module.def("affinity", &affinity, nb::arg("features"), nb::arg("out"), nb::arg("degrees").none(),
             nb::arg("kind"), nb::arg("mode"), nb::arg("threshold"), nb::arg("alpha"), nb::arg("context"));
  nb::class_<PackedGcn>(module, "PackedGcn")
      .def(nb::init<bool, const Vector&, const Vector&, const std::vector<LayerTuple>&,
                    const std::vector<LinearTuple>&, float, const patchcut_context&>())
      .def_prop_ro("isa", &PackedGcn::isa);
  module.def("gcn_forward", &gcn_forward, nb::arg("features"), nb::arg("affinity").none(),
             nb::arg("degrees").none(), nb::arg("out"), nb::arg("weights"), nb::arg("context"));
}

}  // namespace patchcut
