#include "clusters/assign.h"

#include <cmath>

#include "c_api/c_face.h"
#include "c_api/half_rows.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "assign";

}  // namespace

patchcut_status patchcut_assign(const void* features, int32_t dtype, int64_t batch, int64_t n, int64_t d,
                                const float* prototypes, int64_t c, float temperature, int32_t* labels,
                                float* similarity, float* assignment, const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, n, d});
    require_sizes(kOp, {batch, n, c});
    require_sizes(kOp, {c, d});
    require(d > 0, kOp, "features must have at least one column");
    require(c > 0, kOp, "prototypes must have at least one row");
    require_dtype(kOp, "dtype", dtype);
    Arrays arrays(kOp);
    arrays.input("features", features, batch * n * d, dtype);
    arrays.input("prototypes", prototypes, c * d);
    arrays.output("labels", labels, batch * n);
    arrays.output("similarity", similarity, batch * n);
    arrays.optional_output("assignment", assignment, batch * n * c);
    require(assignment == nullptr || (temperature > 0 && std::isfinite(1 / temperature)), kOp,
            "temperature must be above 0, with a finite inverse");
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        assign_cuda(features, dtype, batch, n, d, prototypes, c, temperature, labels, similarity, assignment,
                    queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const FloatRows item(features, dtype, b * n * d, n * d);
      assign_cpu(item.data(), n, d, prototypes, c, temperature, labels + b * n, similarity + b * n,
                 assignment == nullptr ? nullptr : assignment + b * n * c);
    }
  });
}
