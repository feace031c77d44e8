#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>

#include "bindings.h"

namespace patchcut {
namespace {

using Content = std::array<int64_t, 4>;
using Triple = std::array<float, 3>;

patchcut_preprocess_params params_of(const FloatArray<4>& images, const Content& content,
                                     patchcut_color color, const Triple& scale, const Triple& offset) {
  patchcut_preprocess_params params{};
  params.height = extent(images, 2);
  params.width = extent(images, 3);
  params.top = content[0];
  params.left = content[1];
  params.content_height = content[2];
  params.content_width = content[3];
  params.color = color;
  std::copy(scale.begin(), scale.end(), params.scale);
  std::copy(offset.begin(), offset.end(), params.offset);
  return params;
}

void preprocess(const nb::ndarray<const uint8_t, nb::ndim<4>>& frames, const FloatArray<4>& images,
                const Content& content, bool bgr, const Triple& scale, const Triple& offset,
                const patchcut_context& context) {
  const patchcut_preprocess_params params =
      params_of(images, content, bgr ? PATCHCUT_BGR : PATCHCUT_RGB, scale, offset);
  const int64_t strides[4] = {frames.stride(0), frames.stride(1), frames.stride(2), frames.stride(3)};
  run([&] {
    return patchcut_preprocess(frames.data(), extent(frames, 0), extent(frames, 1), extent(frames, 2),
                               strides, &params, images.data(), dtype_of(images), &context);
  });
}

// frames [batch, height * 3 / 2, width], chroma below the luma.
void preprocess_nv12(const nb::ndarray<const uint8_t, nb::ndim<3>>& frames, const FloatArray<4>& images,
                     const Content& content, const Triple& scale, const Triple& offset,
                     const patchcut_context& context) {
  const patchcut_preprocess_params params = params_of(images, content, PATCHCUT_NV12, scale, offset);
  const int64_t height = extent(frames, 1) / 3 * 2;
  const int64_t strides[4] = {frames.stride(0), frames.stride(1), 1, height * frames.stride(1)};
  run([&] {
    return patchcut_preprocess(frames.data(), extent(frames, 0), height, extent(frames, 2), strides, &params,
                               images.data(), dtype_of(images), &context);
  });
}

}  // namespace

void bind_images(nb::module_& module) {
  module.def("preprocess", &preprocess);
  module.def("preprocess_nv12", &preprocess_nv12);
}

}  // namespace patchcut
