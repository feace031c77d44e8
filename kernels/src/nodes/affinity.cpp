#include "nodes/affinity.h"

#include <cmath>

#include "c_api/c_face.h"
#include "c_api/half_rows.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "affinity";

void check(const patchcut_affinity_params* params) {
  require_struct(kOp, "params", params);
  require(params->kind == PATCHCUT_COSINE || params->kind == PATCHCUT_DOT, kOp,
          "kind must be PATCHCUT_COSINE or PATCHCUT_DOT, got " + std::to_string(params->kind));
  require(params->mode == PATCHCUT_NCUT || params->mode == PATCHCUT_CC, kOp,
          "mode must be PATCHCUT_NCUT or PATCHCUT_CC, got " + std::to_string(params->mode));
  require(std::isfinite(params->threshold) && params->threshold >= 0, kOp, "threshold must be at least 0");
  require(params->alpha > 0 && std::isfinite(1 / params->alpha) && 1 / params->alpha > 0, kOp,
          "alpha must be above 0, with a finite inverse");
}

}  // namespace

patchcut_status patchcut_affinity(const void* features, int32_t dtype, int64_t batch, int64_t n, int64_t d,
                                  const patchcut_affinity_params* params, void* affinity,
                                  int32_t affinity_dtype, float* degrees, const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, n, d});
    require_sizes(kOp, {batch, n, n});
    require(d > 0, kOp, "features must have at least one column");
    require_dtype(kOp, "dtype", dtype);
    require_dtype(kOp, "affinity_dtype", affinity_dtype);
    Arrays arrays(kOp);
    arrays.input("features", features, batch * n * d, dtype);
    arrays.output("affinity", affinity, batch * n * n, affinity_dtype);
    arrays.optional_output("degrees", degrees, batch * n);
    check(params);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        affinity_cuda(features, dtype, batch, n, d, *params, affinity, affinity_dtype, degrees, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const FloatRows item(features, dtype, b * n * d, n * d);
      FloatResult result(affinity, affinity_dtype, b * n * n, n * n);
      affinity_cpu(item.data(), n, d, *params, result.data(), degrees == nullptr ? nullptr : degrees + b * n);
      require(result.store(), kOp, "features overflow: affinities must fit float16, got 65520 or more");
    }
  });
}
