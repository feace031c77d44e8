#include <nanobind/stl/optional.h>

#include <optional>
#include <string>

#include "bindings.h"

namespace patchcut {
namespace {

void upsample_argmax(const Input<float, 3>& assignment, int64_t grid_height, int64_t grid_width,
                     const Array<int32_t, 3>& labels, const std::optional<Array<float, 3>>& confidence,
                     const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_upsample_argmax(assignment.data(), extent(assignment, 0), grid_height, grid_width,
                                    extent(assignment, 2), extent(labels, 1), extent(labels, 2),
                                    labels.data(), data_or_null(confidence), asked);
  });
}

void connected_components(const Input<int32_t, 3>& label_map, int32_t connectivity, int64_t min_area,
                          const Array<int32_t, 3>& ids, const std::optional<Array<int32_t, 3>>& kept_labels,
                          const Array<int32_t, 1>& counts, const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_connected_components(label_map.data(), extent(label_map, 0), extent(label_map, 1),
                                         extent(label_map, 2), connectivity, min_area, ids.data(),
                                         data_or_null(kept_labels), counts.data(), asked);
  });
}

void relabel(const Input<int32_t, 3>& labels, const Input<int32_t, 1>& table, const Array<int32_t, 3>& out,
             const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_relabel(labels.data(), extent(labels, 0), extent(labels, 1), extent(labels, 2),
                            table.data(), extent(table, 0), out.data(), asked);
  });
}

void region_stats(const Input<int32_t, 3>& ids, const std::optional<Input<int32_t, 3>>& label_map,
                  const std::optional<Input<float, 3>>& confidence, const Array<int64_t, 2>& area,
                  const Array<float, 3>& boxes_xyxy, const std::optional<Array<float, 2>>& mean_confidence,
                  const std::optional<Array<int32_t, 2>>& label, const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_region_stats(ids.data(), data_or_null(label_map), data_or_null(confidence),
                                 extent(ids, 0), extent(ids, 1), extent(ids, 2), extent(area, 1), area.data(),
                                 boxes_xyxy.data(), data_or_null(mean_confidence), data_or_null(label),
                                 asked);
  });
}

// Arrays of bool are lent as they are; the C face reads and writes their bytes.
const uint8_t* as_bytes(const bool* values) { return reinterpret_cast<const uint8_t*>(values); }
uint8_t* as_bytes(bool* values) { return reinterpret_cast<uint8_t*>(values); }

void rle_encode(const Input<bool, 3>& masks, const Array<uint32_t, 1>& runs, const Array<int64_t, 1>& offsets,
                const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_rle_encode(as_bytes(masks.data()), extent(masks, 0), extent(masks, 1), extent(masks, 2),
                               extent(runs, 0), runs.data(), offsets.data(), asked);
  });
}

void rle_encode_ids(const Input<int32_t, 3>& ids, int64_t count, const Array<uint32_t, 1>& runs,
                    const Array<int64_t, 1>& offsets, const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_rle_encode_ids(ids.data(), extent(ids, 0), extent(ids, 1), extent(ids, 2), count,
                                   extent(runs, 0), runs.data(), offsets.data(), asked);
  });
}

void rle_decode(const Input<uint32_t, 1>& runs, const Input<int64_t, 1>& offsets, const Array<bool, 3>& masks,
                const patchcut_context& context) {
  run(context, [&](const patchcut_context* asked) {
    return patchcut_rle_decode(runs.data(), offsets.data(), extent(masks, 0), extent(masks, 1),
                               extent(masks, 2), extent(runs, 0), as_bytes(masks.data()), asked);
  });
}

nb::bytes rle_write_text(const Input<uint32_t, 1>& runs) {
  std::string text(7 * runs.size(), 0);
  int64_t length = 0;
  raise_on(patchcut_rle_write_text(runs.data(), extent(runs, 0), text.data(), &length));
  return nb::bytes(text.data(), static_cast<size_t>(length));
}

int64_t rle_read_text(const nb::bytes& text, const Array<uint32_t, 1>& runs) {
  int64_t count = 0;
  raise_on(patchcut_rle_read_text(text.c_str(), static_cast<int64_t>(text.size()), runs.data(), &count));
  return count;
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
  module.def("rle_encode", &rle_encode);
  module.def("rle_encode_ids", &rle_encode_ids);
  module.def("rle_decode", &rle_decode);
  module.def("rle_write_text", &rle_write_text);
  module.def("rle_read_text", &rle_read_text);
}

}  // namespace patchcut
