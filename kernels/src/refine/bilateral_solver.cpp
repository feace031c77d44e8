#include "refine/bilateral_solver.h"

#include <cmath>

#include "c_api/c_face.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "bilateral_solver";

void require_sigma(const char* name, float sigma) {
  require(sigma >= 1 && std::isfinite(sigma), kOp, std::string(name) + " must be at least 1");
}

void check(const patchcut_bilateral_solver_params* params) {
  require_struct(kOp, "params", params);
  require_sigma("sigma_spatial", params->sigma_spatial);
  require_sigma("sigma_luma", params->sigma_luma);
  require_sigma("sigma_chroma", params->sigma_chroma);
  require(params->smoothness >= 0 && std::isfinite(params->smoothness), kOp, "smoothness must be at least 0");
  require_rounds(kOp, "iterations", params->iterations, 0);
  require_rounds(kOp, "bistochastic_iterations", params->bistochastic_iterations, 0);
  require(params->color == PATCHCUT_RGB || params->color == PATCHCUT_BGR, kOp,
          "color must be PATCHCUT_RGB or PATCHCUT_BGR, got " + std::to_string(params->color));
}

}  // namespace

patchcut_status patchcut_bilateral_solver(const uint8_t* frames, const float* maps, const float* confidence,
                                          int64_t batch, int64_t height, int64_t width,
                                          const patchcut_bilateral_solver_params* params, float* out,
                                          const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, height, width, 3});
    const int64_t pixels = height * width;
    require(pixels < (int64_t{1} << 29), kOp, "a map must have fewer than 2^29 pixels");
    Arrays arrays(kOp);
    arrays.input("frames", frames, batch * pixels * 3);
    arrays.input("maps", maps, batch * pixels);
    arrays.input("confidence", confidence, batch * pixels);
    arrays.output("out", out, batch * pixels, {"maps", "confidence"});
    check(params);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        bilateral_solver_cuda(frames, maps, confidence, batch, height, width, *params, out, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      bilateral_solver_cpu(frames + b * pixels * 3, maps + b * pixels, confidence + b * pixels, height, width,
                           *params, out + b * pixels);
    }
  });
}
