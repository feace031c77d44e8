#include "refine/guided_refine.h"

#include <cmath>

#include "c_api/c_face.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "guided_refine";
constexpr int64_t kMostQueuedLabels = 65536;  // each takes some kernels

void check(const patchcut_guided_refine_params* params) {
  require_struct(kOp, "params", params);
  require(params->radius >= 1 && params->radius <= kMaxGuidedRadius, kOp,
          "radius must be 1 to 65536, got " + std::to_string(params->radius));
  require(params->eps >= kLeastGuidedEps && std::isfinite(params->eps * 65025.0f), kOp,
          "eps must be at least 1e-9, and at most 1e33");
  require(params->subsample >= 1 && params->subsample <= kMaxGuidedRadius, kOp,
          "subsample must be 1 to 65536, got " + std::to_string(params->subsample));
}

void check_sizes(int64_t batch, int64_t planes, int64_t height, int64_t width) {
  require_sizes(kOp, {batch, planes, height, width});
  require_sizes(kOp, {batch, height, width, 3});
  require(height == 0 || width < INT32_MAX / height, kOp, "a map must have fewer than 2^31 - 1 pixels");
}

}  // namespace

patchcut_status patchcut_guided_refine(const uint8_t* frames, const float* maps, int64_t batch, int64_t k,
                                       int64_t height, int64_t width,
                                       const patchcut_guided_refine_params* params, float* out,
                                       const patchcut_context* context) {
  return guard_op(context, [&] {
    check_sizes(batch, k, height, width);
    const int64_t pixels = height * width;
    Arrays arrays(kOp);
    arrays.input("frames", frames, batch * pixels * 3);
    arrays.input("maps", maps, batch * k * pixels);
    arrays.output("out", out, batch * k * pixels);
    check(params);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        guided_refine_cuda(frames, maps, batch, k, height, width, *params, out, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      guided_refine_cpu(frames + b * pixels * 3, maps + b * k * pixels, k, height, width, *params,
                        out + b * k * pixels);
    }
  });
}

patchcut_status patchcut_guided_refine_labels(const uint8_t* frames, const int32_t* label_maps, int64_t batch,
                                              int64_t height, int64_t width, int64_t count,
                                              const patchcut_guided_refine_params* params, int32_t* out,
                                              const patchcut_context* context) {
  return guard_op(context, [&] {
    check_sizes(batch, 1, height, width);
    const int64_t pixels = height * width;
    Arrays arrays(kOp);
    arrays.input("frames", frames, batch * pixels * 3);
    arrays.input("label_maps", label_maps, batch * pixels);
    arrays.output("out", out, batch * pixels);
    check(params);
    require(count >= 0 && count <= INT32_MAX, kOp,
            "count must be 0 to 2^31 - 1, got " + std::to_string(count));
    if (on_cuda(kOp, context)) {
      require(count >= 1 && count <= kMostQueuedLabels, kOp,
              "count must be 1 to 65536 on CUDA, got " + std::to_string(count));
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        guided_refine_labels_cuda(frames, label_maps, batch, height, width, count, *params, out, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      guided_refine_labels_cpu(frames + b * pixels * 3, label_maps + b * pixels, height, width, *params,
                               out + b * pixels);
    }
  });
}
