#include "patchcut/preprocess.h"

#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>

#include "bindings.h"

namespace patchcut {
namespace {

using Frames = nb::ndarray<const uint8_t, nb::ndim<4>, nb::device::cpu>;

void preprocess(const Frames& frames, const Array<float, 4>& images, const std::array<int64_t, 4>& content,
                bool swap_channels, const std::array<float, 3>& scale, const std::array<float, 3>& offset) {
  PreprocessParams params{};
  params.height = static_cast<int64_t>(images.shape(2));
  params.width = static_cast<int64_t>(images.shape(3));
  params.top = content[0];
  params.left = content[1];
  params.content_height = content[2];
  params.content_width = content[3];
  params.swap_channels = swap_channels;
  std::copy(scale.begin(), scale.end(), params.scale);
  std::copy(offset.begin(), offset.end(), params.offset);
  FrameView frame{frames.data(),
                  static_cast<int64_t>(frames.shape(1)),
                  static_cast<int64_t>(frames.shape(2)),
                  frames.stride(1),
                  frames.stride(2),
                  frames.stride(3)};
  float* image = images.data();
  nb::gil_scoped_release release;
  for (size_t b = 0; b < frames.shape(0); ++b) {
    preprocess_cpu(frame, params, image);
    frame.data += frames.stride(0);
    image += 3 * params.height * params.width;
  }
}

}  // namespace

void bind_preprocess(nb::module_& module) { module.def("preprocess", &preprocess); }

}  // namespace patchcut
