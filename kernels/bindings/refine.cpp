#include <nanobind/stl/array.h>

#include <array>

#include "bindings.h"

namespace patchcut {
namespace {

patchcut_guided_refine_params make_params(int64_t radius, float eps, int64_t subsample) {
  patchcut_guided_refine_params params{};
  params.radius = radius;
  params.eps = eps;
  params.subsample = subsample;
  return params;
}

void guided_refine(const Input<uint8_t, 4>& frames, const Input<float, 4>& maps, int64_t radius, float eps,
                   int64_t subsample, const Array<float, 4>& out, const patchcut_context& context) {
  const patchcut_guided_refine_params params = make_params(radius, eps, subsample);
  run(context, [&](const patchcut_context* asked) {
    return patchcut_guided_refine(frames.data(), maps.data(), extent(maps, 0), extent(maps, 1),
                                  extent(maps, 2), extent(maps, 3), &params, out.data(), asked);
  });
}

void guided_refine_labels(const Input<uint8_t, 4>& frames, const Input<int32_t, 3>& label_maps, int64_t count,
                          int64_t radius, float eps, int64_t subsample, const Array<int32_t, 3>& out,
                          const patchcut_context& context) {
  const patchcut_guided_refine_params params = make_params(radius, eps, subsample);
  run(context, [&](const patchcut_context* asked) {
    return patchcut_guided_refine_labels(frames.data(), label_maps.data(), extent(label_maps, 0),
                                         extent(label_maps, 1), extent(label_maps, 2), count, &params,
                                         out.data(), asked);
  });
}

void bilateral_solver(const Input<uint8_t, 4>& frames, const Input<float, 3>& maps,
                      const Input<float, 3>& confidence, const std::array<float, 3>& sigmas, float smoothness,
                      int64_t iterations, int64_t bistochastic_iterations, patchcut_color color,
                      const Array<float, 3>& out, const patchcut_context& context) {
  patchcut_bilateral_solver_params params{};
  params.sigma_spatial = sigmas[0];
  params.sigma_luma = sigmas[1];
  params.sigma_chroma = sigmas[2];
  params.smoothness = smoothness;
  params.iterations = iterations;
  params.bistochastic_iterations = bistochastic_iterations;
  params.color = color;
  run(context, [&](const patchcut_context* asked) {
    return patchcut_bilateral_solver(frames.data(), maps.data(), confidence.data(), extent(maps, 0),
                                     extent(maps, 1), extent(maps, 2), &params, out.data(), asked);
  });
}

}  // namespace

void bind_refine(nb::module_& module) {
  module.def("bilateral_solver", &bilateral_solver);
  module.def("guided_refine", &guided_refine);
  module.def("guided_refine_labels", &guided_refine_labels);
}

}  // namespace patchcut
