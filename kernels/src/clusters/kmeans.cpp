#include "clusters/kmeans.h"

#include "c_api/c_face.h"
#include "c_api/half_rows.h"
#include "clusters/metric.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "kmeans";

void check(const patchcut_kmeans_params* params, const float* init) {
  require_struct(kOp, "params", params);
  require_metric(kOp, params->metric);
  require_rounds(kOp, "iterations", params->iterations, 1);
  require_rounds(kOp, "restarts", params->restarts, 1);
  require(params->restarts == 1 || init == nullptr, kOp, "restarts must be 1 where init is given");
}

}  // namespace

patchcut_status patchcut_kmeans(const void* points, int32_t dtype, int64_t batch, int64_t n, int64_t d,
                                int64_t k, const float* init, const patchcut_kmeans_params* params,
                                int32_t* labels, float* centroids, float* inertia,
                                const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, n, d});
    require(n > 0, kOp, "points must have at least one row");
    require(d > 0, kOp, "points must have at least one column");
    require(k >= 1 && k <= n, kOp,
            "k must be 1 to the number of points, " + std::to_string(n) + ", got " + std::to_string(k));
    require_dtype(kOp, "dtype", dtype);
    check(params, init);
    Arrays arrays(kOp);
    arrays.input("points", points, batch * n * d, dtype);
    arrays.optional_input("init", init, batch * k * d);
    arrays.output("labels", labels, batch * n);
    arrays.output("centroids", centroids, batch * k * d);
    arrays.output("inertia", inertia, batch);
    if (on_cuda(kOp, context)) {
      require(params->iterations * params->restarts <= kMostRounds, kOp,
              "iterations times restarts must be at most 65536 on CUDA");
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        kmeans_cuda(points, dtype, batch, n, d, k, *params, init, labels, centroids, inertia, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const FloatRows item(points, dtype, b * n * d, n * d);
      kmeans_cpu(item.data(), n, d, k, *params, init == nullptr ? nullptr : init + b * k * d, labels + b * n,
                 centroids + b * k * d, inertia + b);
    }
  });
}
