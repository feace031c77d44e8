#include "images/preprocess.h"

#include <cmath>

#include "c_api/c_face.h"
#include "c_api/half_rows.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "preprocess";

void check(const patchcut_preprocess_params* params) {
  require(params != nullptr, kOp, "params must not be null");
  require_sizes(kOp, {params->height, params->width, 3});
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

}  // namespace

patchcut_status patchcut_preprocess(const uint8_t* frames, int64_t batch, int64_t height, int64_t width,
                                    const int64_t strides[4], const patchcut_preprocess_params* params,
                                    void* images, int32_t dtype, const patchcut_context* context) {
  return guard([&] {
    check(params);
    const int64_t size = 3 * params->height * params->width;
    require_sizes(kOp, {batch, height, width, 3});
    require_sizes(kOp, {batch, size});
    require_dtype(kOp, "dtype", dtype);
    require(height > 0 && width > 0, kOp, "frames must not be empty");
    require_array(kOp, "frames", frames, batch);
    require_array(kOp, "strides", strides, batch);
    require_array(kOp, "images", images, batch);
    if (batch == 0) return;
    const bool nv12 = params->color == PATCHCUT_NV12;
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
