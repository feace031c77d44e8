#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <optional>
#include <tuple>

#include "bindings.h"

namespace patchcut {
namespace {

using Matrix = Input<float, 2>;
using Vector = Input<float, 1>;
using WeightsTuple = std::tuple<Matrix, Vector, Matrix, Vector, Matrix, Vector>;

void gnn_fit(const FloatInput<3>& features, const FloatInput<3>& affinity, const Array<float, 3>& out,
             const Array<float, 2>& losses, patchcut_affinity_mode loss, float learning_rate, float dropout,
             float tolerance, uint64_t seed, const std::optional<WeightsTuple>& init,
             const std::optional<Array<float, 2>>& fitted, const patchcut_context& context) {
  patchcut_gnn_fit_params params = PATCHCUT_GNN_FIT_DEFAULTS;
  params.loss = loss;
  params.steps = extent(losses, 1);
  params.learning_rate = learning_rate;
  params.dropout = dropout;
  params.tolerance = tolerance;
  params.seed = seed;
  patchcut_gnn_fit_weights weights{};
  if (init) {
    const auto& [theta, theta_bias, hidden, hidden_bias, logits, logits_bias] = *init;
    params.graph_width = extent(hidden, 0);
    params.hidden_width = extent(hidden, 1);
    weights = {theta.data(),       theta_bias.data(), hidden.data(),
               hidden_bias.data(), logits.data(),     logits_bias.data()};
  }
  run(context, [&](const patchcut_context* asked) {
    return patchcut_gnn_fit(features.data(), dtype_of(features), affinity.data(), dtype_of(affinity),
                            extent(features, 0), extent(features, 1), extent(features, 2), extent(out, 2),
                            init ? &weights : nullptr, &params, out.data(), losses.data(),
                            data_or_null(fitted), asked);
  });
}

}  // namespace

void bind_fit(nb::module_& module) {
  module.def("gnn_fit", &gnn_fit, nb::arg("features"), nb::arg("affinity"), nb::arg("out"), nb::arg("losses"),
             nb::arg("loss"), nb::arg("learning_rate"), nb::arg("dropout"), nb::arg("tolerance"),
             nb::arg("seed"), nb::arg("init").none(), nb::arg("fitted").none(), nb::arg("context"));
}

}  // namespace patchcut
