#include <nanobind/stl/optional.h>

#include <optional>

#include "bindings.h"

namespace patchcut {
namespace {

void upsample_argmax(const Input<float, 3>& assignment, int64_t grid_height, int64_t grid_width,
                     const Array<int32_t, 3>& labels, const std::optional<Array<float, 3>>& confidence,
                     const patchcut_context& context) {
  run([&] {
    return patchcut_upsample_argmax(assignment.data(), extent(assignment, 0), grid_height, grid_width,
                                    extent(assignment, 2), extent(labels, 1), extent(labels, 2),
                                    labels.data(), data_or_null(confidence), &context);
  });
}

void connected_components(const Input<int32_t, 3>& label_map, int32_t connectivity, int64_t min_area,
                          const Array<int32_t, 3>& ids, const std::optional<Array<int32_t, 3>>& kept_labels,
                          const Array<int32_t, 1>& counts, const patchcut_context& context) {
  run([&] {
    return patchcut_connected_components(label_map.data(), extent(label_map, 0), extent(label_map, 1),
                                         extent(label_map, 2), connectivity, min_area, ids.data(),
                                         data_or_null(kept_labels), counts.data(), &context);
  });
}

void relabel(const Input<int32_t, 3>& labels, const Input<int32_t, 1>& table, const Array<int32_t, 3>& out,
             const patchcut_context& context) {
  run([&] {
    return patchcut_relabel(labels.data(), extent(labels, 0), extent(labels, 1), extent(labels, 2),
                            table.data(), extent(table, 0), out.data(), &context);
  });
}

void region_stats(const Input<int32_t, 3>& ids, const std::optional<Input<int32_t, 3>>& label_map,
                  const std::optional<Input<float, 3>>& confidence, const Array<int64_t, 2>& area,
                  const Array<float, 3>& boxes_xyxy, const std::optional<Array<float, 2>>& mean_confidence,
                  const std::optional<Array<int32_t, 2>>& label, const patchcut_context& context) {
  run([&] {
    return patchcut_region_stats(ids.data(), data_or_null(label_map), data_or_null(confidence),
                                 extent(ids, 0), extent(ids, 1), extent(ids, 2), extent(area, 1), area.data(),
                                 boxes_xyxy.data(), data_or_null(mean_confidence), data_or_null(label),
                                 &context);
  });
}

}  // namespace

void bind_masks(nb::module_& module) {
  module.def("upsample_argmax", &upsample_argmax, nb::arg("assignment"), nb::arg("grid_height"),
             nb::arg("grid_width"), nb::arg("labels"), nb::arg("confidence").none(), nb::arg("context"));
  module.def("connected_components", &connected_components, nb::arg("label_map"), nb::arg("connectivity"),
             nb::arg("min_area"), nb::arg("ids"), nb::arg("kept_labels").none(), nb::arg("counts"),
             nb::arg("context"));
  module.def("relabel", &relabel);
  module.def("region_stats", &region_stats, nb::arg("ids"), nb::arg("label_map").none(),
             nb::arg("confidence").none(), nb::arg("area"), nb::arg("boxes_xyxy"),
             nb::arg("mean_confidence").none(), nb::arg("label").none(), nb::arg("context"));
}

}  // namespace patchcut
