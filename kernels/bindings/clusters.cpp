#include <nanobind/stl/optional.h>

#include <optional>

#include "bindings.h"

namespace patchcut {
namespace {

void kmeans(const FloatInput<3>& points, const std::optional<Input<float, 3>>& init, patchcut_metric metric,
            int64_t iterations, int64_t restarts, uint64_t seed, const Array<int32_t, 2>& labels,
            const Array<float, 3>& centroids, const Array<float, 1>& inertia,
            const patchcut_context& context) {
  const patchcut_kmeans_params params{metric, iterations, restarts, seed};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_kmeans(points.data(), dtype_of(points), extent(points, 0), extent(points, 1),
                           extent(points, 2), extent(centroids, 1), data_or_null(init), &params,
                           labels.data(), centroids.data(), inertia.data(), asked);
  });
}

void kmeans_sums(const FloatInput<2>& points, const Input<float, 2>& centroids, patchcut_metric metric,
                 const Array<int32_t, 1>& labels, const Array<float, 1>& distances,
                 const std::optional<Array<double, 2>>& sums, const Array<int64_t, 1>& counts,
                 const Array<double, 1>& inertia, const patchcut_context& context) {
  const patchcut_kmeans_sums_params params{metric};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_kmeans_sums(points.data(), dtype_of(points), extent(points, 0), extent(points, 1),
                                centroids.data(), extent(centroids, 0), &params, labels.data(),
                                distances.data(), data_or_null(sums), counts.data(), inertia.data(), asked);
  });
}

void correlation_cluster(const FloatInput<3>& affinity, int64_t max_clusters, uint64_t seed,
                         const Array<int32_t, 2>& labels, const Array<int32_t, 1>& counts,
                         const Array<float, 1>& objectives, const patchcut_context& context) {
  const patchcut_correlation_cluster_params params{max_clusters, seed};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_correlation_cluster(affinity.data(), dtype_of(affinity), extent(affinity, 0),
                                        extent(affinity, 1), &params, labels.data(), counts.data(),
                                        objectives.data(), asked);
  });
}

void assign(const FloatInput<3>& features, const Input<float, 2>& prototypes, float temperature,
            const Array<int32_t, 2>& labels, const Array<float, 2>& similarity,
            const std::optional<Array<float, 3>>& assignment, const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_assign(features.data(), dtype_of(features), extent(features, 0), extent(features, 1),
                           extent(features, 2), prototypes.data(), extent(prototypes, 0), temperature,
                           labels.data(), similarity.data(), data_or_null(assignment), asked);
  });
}

void cosegment(const FloatInput<2>& features, const std::optional<Input<int64_t, 1>>& offsets,
               const std::optional<Input<float, 1>>& weights, const Array<float, 1>& scores,
               const Array<int32_t, 1>& seeds, const Array<float, 1>& embedding,
               const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_cosegment(features.data(), dtype_of(features), extent(features, 0), extent(features, 1),
                              extent(seeds, 0), data_or_null(offsets), data_or_null(weights), scores.data(),
                              seeds.data(), embedding.data(), asked);
  });
}

}  // namespace

void bind_clusters(nb::module_& module) {
  nb::enum_<patchcut_metric>(module, "Metric")
      .value("euclidean", PATCHCUT_EUCLIDEAN)
      .value("cosine", PATCHCUT_COSINE_DISTANCE);
  module.def("kmeans", &kmeans, nb::arg("points"), nb::arg("init").none(), nb::arg("metric"),
             nb::arg("iterations"), nb::arg("restarts"), nb::arg("seed"), nb::arg("labels"),
             nb::arg("centroids"), nb::arg("inertia"), nb::arg("context"));
  module.def("kmeans_sums", &kmeans_sums, nb::arg("points"), nb::arg("centroids"), nb::arg("metric"),
             nb::arg("labels"), nb::arg("distances"), nb::arg("sums").none(), nb::arg("counts"),
             nb::arg("inertia"), nb::arg("context"));
  module.def("correlation_cluster", &correlation_cluster, nb::arg("affinity"), nb::arg("max_clusters"),
             nb::arg("seed"), nb::arg("labels"), nb::arg("counts"), nb::arg("objectives"),
             nb::arg("context"));
  module.def("assign", &assign, nb::arg("features"), nb::arg("prototypes"), nb::arg("temperature"),
             nb::arg("labels"), nb::arg("similarity"), nb::arg("assignment").none(), nb::arg("context"));
  module.def("cosegment", &cosegment, nb::arg("features"), nb::arg("offsets").none(),
             nb::arg("weights").none(), nb::arg("scores"), nb::arg("seeds"), nb::arg("embedding"),
             nb::arg("context"));
}

}  // namespace patchcut
