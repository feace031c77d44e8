#include "clusters/correlation_cluster.h"

#include "c_api/c_face.h"
#include "c_api/half_rows.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "correlation_cluster";

void check(const patchcut_correlation_cluster_params* params) {
  require_struct(kOp, "params", params);
  require(params->max_clusters >= 1, kOp,
          "max_clusters must be at least 1, got " + std::to_string(params->max_clusters));
}

}  // namespace

patchcut_status patchcut_correlation_cluster(const void* affinity, int32_t dtype, int64_t batch, int64_t n,
                                             const patchcut_correlation_cluster_params* params,
                                             int32_t* labels, int32_t* counts, float* objectives,
                                             const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, n, n});
    require(n > 0, kOp, "affinity must have at least one node");
    require(n <= INT32_MAX, kOp, "affinity must have fewer than 2^31 nodes, got " + std::to_string(n));
    require_dtype(kOp, "dtype", dtype);
    Arrays arrays(kOp);
    arrays.input("affinity", affinity, batch * n * n, dtype);
    arrays.output("labels", labels, batch * n);
    arrays.output("counts", counts, batch);
    arrays.output("objectives", objectives, batch);
    check(params);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        correlation_cluster_cuda(affinity, dtype, batch, n, *params, labels, counts, objectives, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const FloatRows item(affinity, dtype, b * n * n, n * n);
      correlation_cluster_cpu(item.data(), n, *params, labels + b * n, counts + b, objectives + b);
    }
  });
}
