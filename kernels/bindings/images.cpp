#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>

#include "bindings.h"

namespace patchcut {
namespace {

using Content = std::array<int64_t, 4>;
using Triple = std::array<float, 3>;

// frames [batch, height, width, 3]; NV12: [batch, height * 3 / 2, width], chroma below the luma.
void preprocess(const nb::ndarray<const uint8_t>& frames, const FloatArray<4>& images, const Content& content,
                patchcut_color color, const Triple& scale, const Triple& offset,
                const patchcut_context& context) {
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
  const bool nv12 = color == PATCHCUT_NV12;
  const int64_t height = nv12 ? extent(frames, 1) / 3 * 2 : extent(frames, 1);
  const int64_t strides[4] = {frames.stride(0), frames.stride(1), nv12 ? 1 : frames.stride(2),
                              nv12 ? height * frames.stride(1) : frames.stride(3)};
  run(context, [&](const patchcut_context* asked) {
    return patchcut_preprocess(frames.data(), extent(frames, 0), height, extent(frames, 2), strides, &params,
                               images.data(), dtype_of(images), asked);
  });
}

}  // namespace

void bind_images(nb::module_& module) {
  nb::enum_<patchcut_color>(module, "Color")
      .value("bgr", PATCHCUT_BGR)
      .value("rgb", PATCHCUT_RGB)
      .value("nv12", PATCHCUT_NV12);
  module.def("preprocess", &preprocess);
}

}  // namespace patchcut
