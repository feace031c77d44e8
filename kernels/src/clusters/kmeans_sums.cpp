#include "clusters/kmeans_sums.h"

#include <limits>

#include "c_api/c_face.h"
#include "clusters/metric.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "kmeans_sums";

}  // namespace

patchcut_status patchcut_kmeans_sums(const void* points, int32_t dtype, int64_t n, int64_t d,
                                     const float* centroids, int64_t k,
                                     const patchcut_kmeans_sums_params* params, int32_t* labels,
                                     float* distances, double* sums, int64_t* counts, double* inertia,
                                     const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {n, d});
    require_sizes(kOp, {k, d});
    require(d > 0, kOp, "points must have at least one column");
    require(k > 0 && k <= std::numeric_limits<int32_t>::max(), kOp,
            "k must be 1 to 2^31 - 1, got " + std::to_string(k));
    require_dtype(kOp, "dtype", dtype);
    require_struct(kOp, "params", params);
    require_metric(kOp, params->metric);
    Arrays arrays(kOp);
    arrays.input("points", points, n * d, dtype);
    arrays.input("centroids", centroids, k * d);
    arrays.output("labels", labels, n);
    arrays.output("distances", distances, n);
    arrays.optional_output("sums", sums, k * d);
    arrays.output("counts", counts, k);
    arrays.output("inertia", inertia, 1);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        kmeans_sums_cuda(points, dtype, n, d, centroids, k, *params, labels, distances, sums, counts, inertia,
                         queue);
      });
    }
    kmeans_sums_cpu(points, dtype, n, d, centroids, k, *params, labels, distances, sums, counts, inertia);
  });
}
