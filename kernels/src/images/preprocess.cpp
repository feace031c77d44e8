#include "images/preprocess.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "c_api/c_face.h"
#include "c_api/half_rows.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "preprocess";

void check(const patchcut_preprocess_params* params) {
  require_struct(kOp, "params", params);
  require_sizes(kOp, {params->height, params->width, 3});
  require(params->height == 0 || params->width < INT32_MAX / params->height, kOp,
          "an image must have fewer than 2^31 - 1 pixels");
  const bool inside = params->top >= 0 && params->left >= 0 && params->content_height >= 1 &&
                      params->content_width >= 1 && params->content_height <= params->height - params->top &&
                      params->content_width <= params->width - params->left;
  require(inside, kOp, "the content must have pixels and lie inside the image");
  require(params->color >= PATCHCUT_RGB && params->color <= PATCHCUT_NV12, kOp,
          "color must be PATCHCUT_RGB, PATCHCUT_BGR or PATCHCUT_NV12, got " + std::to_string(params->color));
  for (int channel = 0; channel < 3; ++channel) {
    require(std::isfinite(params->scale[channel]) && std::isfinite(params->offset[channel]), kOp,
            "scale and offset must be finite");
  }
}

// Values are 0 to 255.
void check_range(const patchcut_preprocess_params& params, int32_t dtype) {
  const double limit = dtype == PATCHCUT_FLOAT16 ? 65504.0 : std::numeric_limits<float>::max();
  for (int channel = 0; channel < 3; ++channel) {
    const double offset = params.offset[channel];
    const double white = 255.0 * params.scale[channel] + offset;
    require(std::fabs(offset) <= limit && std::fabs(white) <= limit && std::fabs(white - offset) <= limit,
            kOp, "scale and offset must lead to images that fit their dtype");
  }
}

constexpr int64_t kFarthest = int64_t{1} << 58;  // in bytes, from the first pixel to any other

// The bytes that pixels with any strides lie in, from the first in memory to the last.
void add_plane(const uint8_t* first, const std::array<int64_t, 4>& sizes,
               const std::array<int64_t, 4>& strides, Arrays& arrays) {
  int64_t begin = 0;
  int64_t end = 1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t steps = sizes[i] - 1;
    if (steps <= 0) continue;
    require(strides[i] >= -kFarthest / steps && strides[i] <= kFarthest / steps, kOp,
            "strides must fit memory");
    (strides[i] < 0 ? begin : end) += steps * strides[i];
  }
  arrays.input("frames", first + begin, end - begin);
}

}  // namespace

patchcut_status patchcut_preprocess(const uint8_t* frames, int64_t batch, int64_t height, int64_t width,
                                    const int64_t strides[4], const patchcut_preprocess_params* params,
                                    void* images, int32_t dtype, const patchcut_context* context) {
  return guard_op(context, [&] {
    check(params);
    const int64_t size = 3 * params->height * params->width;
    require_sizes(kOp, {batch, height, width, 3});
    require_sizes(kOp, {batch, size});
    require_dtype(kOp, "dtype", dtype);
    check_range(*params, dtype);
    require(height > 0 && width > 0, kOp, "frames must not be empty");
    if (batch == 0) return;
    require(frames != nullptr, kOp, "frames must not be null");
    const bool nv12 = params->color == PATCHCUT_NV12;
    Arrays arrays(kOp);
    arrays.input("strides", strides, 4);
    if (nv12) {
      add_plane(frames, {batch, height, width, 1}, {strides[0], strides[1], 1, 1}, arrays);
      require(std::abs(strides[3]) <= kFarthest, kOp, "strides must fit memory");
      add_plane(frames + strides[3], {batch, height / 2, width, 1}, {strides[0], strides[1], 1, 1}, arrays);
    } else {
      add_plane(frames, {batch, height, width, 3}, {strides[0], strides[1], strides[2], strides[3]}, arrays);
    }
    arrays.output("images", images, batch * size, dtype);
    require(!nv12 || (height % 2 == 0 && width % 2 == 0), kOp, "NV12 frames must have even sizes");
    FrameView frame{
        frames, height, width, strides[1], strides[2], strides[3], nv12 ? frames + strides[3] : nullptr};
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        preprocess_cuda(frame, batch, strides[0], *params, images, dtype, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      FloatResult image(images, dtype, b * size, size);
      preprocess_cpu(frame, *params, image.data());
      image.store();
      frame.data += strides[0];
      if (nv12) frame.chroma += strides[0];
    }
  });
}
