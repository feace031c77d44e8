#include <nanobind/stl/optional.h>

#include <optional>

#include "bindings.h"
#include "patchcut/connected_components.h"
#include "patchcut/region_stats.h"
#include "patchcut/relabel.h"
#include "patchcut/upsample_argmax.h"

namespace patchcut {
namespace {

template <class T>
auto data_or_null(const std::optional<T>& array) {
  return array ? array->data() : nullptr;
}

void upsample_argmax(const Input<float, 2>& assignment, int64_t grid_height, int64_t grid_width,
                     const Array<int32_t, 2>& labels, const std::optional<Array<float, 2>>& confidence) {
  nb::gil_scoped_release release;
  upsample_argmax_cpu(assignment.data(), grid_height, grid_width, static_cast<int64_t>(assignment.shape(1)),
                      static_cast<int64_t>(labels.shape(0)), static_cast<int64_t>(labels.shape(1)),
                      labels.data(), data_or_null(confidence));
}

int64_t connected_components(const Input<int32_t, 2>& label_map, bool diagonal, int64_t min_area,
                             const Array<int32_t, 2>& ids,
                             const std::optional<Array<int32_t, 2>>& kept_labels) {
  nb::gil_scoped_release release;
  return connected_components_cpu(label_map.data(), static_cast<int64_t>(label_map.shape(0)),
                                  static_cast<int64_t>(label_map.shape(1)), diagonal, min_area, ids.data(),
                                  data_or_null(kept_labels));
}

void relabel(const Input<int32_t, 2>& labels, const Input<int32_t, 1>& table, const Array<int32_t, 2>& out) {
  nb::gil_scoped_release release;
  relabel_cpu(labels.data(), static_cast<int64_t>(labels.shape(0)), static_cast<int64_t>(labels.shape(1)),
              table.data(), static_cast<int64_t>(table.shape(0)), out.data());
}

void region_stats(const Input<int32_t, 2>& ids, const std::optional<Input<int32_t, 2>>& label_map,
                  const std::optional<Input<float, 2>>& confidence, const Array<int64_t, 1>& area,
                  const Array<float, 2>& boxes_xyxy, const std::optional<Array<float, 1>>& mean_confidence,
                  const std::optional<Array<int32_t, 1>>& label) {
  const RegionArrays regions{area.data(), boxes_xyxy.data(), data_or_null(mean_confidence),
                             data_or_null(label)};
  nb::gil_scoped_release release;
  region_stats_cpu(ids.data(), data_or_null(label_map), data_or_null(confidence),
                   static_cast<int64_t>(ids.shape(0)), static_cast<int64_t>(ids.shape(1)),
                   static_cast<int64_t>(area.shape(0)), regions);
}

}  // namespace

void bind_masks(nb::module_& module) {
  module.def("upsample_argmax", &upsample_argmax, nb::arg("assignment"), nb::arg("grid_height"),
             nb::arg("grid_width"), nb::arg("labels"), nb::arg("confidence").none());
  module.def("connected_components", &connected_components, nb::arg("label_map"), nb::arg("diagonal"),
             nb::arg("min_area"), nb::arg("ids"), nb::arg("kept_labels").none());
  module.def("relabel", &relabel);
  module.def("region_stats", &region_stats, nb::arg("ids"), nb::arg("label_map").none(),
             nb::arg("confidence").none(), nb::arg("area"), nb::arg("boxes_xyxy"),
             nb::arg("mean_confidence").none(), nb::arg("label").none());
}

}  // namespace patchcut
