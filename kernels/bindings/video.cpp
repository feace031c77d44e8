#include "bindings.h"

namespace patchcut {
namespace {

void propagate(const FloatInput<3>& features, const FloatInput<4>& memory, const Input<float, 4>& values,
               int64_t frames, int64_t grid_height, int64_t grid_width, int64_t radius, int64_t topk,
               float temperature, const Array<float, 3>& out, const patchcut_context& context) {
  const patchcut_propagate_params params{radius, topk, temperature};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_propagate(features.data(), dtype_of(features), memory.data(), dtype_of(memory),
                              values.data(), extent(memory, 0), extent(memory, 1), frames, grid_height,
                              grid_width, extent(features, 2), extent(values, 3), &params, out.data(), asked);
  });
}

}  // namespace

void bind_video(nb::module_& module) {
  module.def("propagate", &propagate, nb::arg("features"), nb::arg("memory"), nb::arg("values"),
             nb::arg("frames"), nb::arg("grid_height"), nb::arg("grid_width"), nb::arg("radius"),
             nb::arg("topk"), nb::arg("temperature"), nb::arg("out"), nb::arg("context"));
}

}  // namespace patchcut
