#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>

#include "bindings.h"

namespace patchcut {
namespace {

using Frames = nb::ndarray<const uint8_t, nb::ndim<4>>;

void preprocess(const Frames& frames, const FloatArray<4>& images, const std::array<int64_t, 4>& content,
                bool swap_channels, const std::array<float, 3>& scale, const std::array<float, 3>& offset,
                const patchcut_context& context) {
  patchcut_preprocess_params params{};
  params.height = extent(images, 2);
  params.width = extent(images, 3);
  params.top = content[0];
  params.left = content[1];
  params.content_height = content[2];
  params.content_width = content[3];
  params.swap_channels = swap_channels;
  std::copy(scale.begin(), scale.end(), params.scale);
  std::copy(offset.begin(), offset.end(), params.offset);
  const int64_t strides[4] = {frames.stride(0), frames.stride(1), frames.stride(2), frames.stride(3)};
  run([&] {
    return patchcut_preprocess(frames.data(), extent(frames, 0), extent(frames, 1), extent(frames, 2),
                               strides, &params, images.data(), dtype_of(images), &context);
  });
}

}  // namespace

void bind_images(nb::module_& module) { module.def("preprocess", &preprocess); }

}  // namespace patchcut
