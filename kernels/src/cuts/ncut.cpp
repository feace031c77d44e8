#include "cuts/ncut.h"

#include <cmath>

#include "c_api/c_face.h"
#include "c_api/half_rows.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "ncut";

}  // namespace

void patchcut::check_cut(const char* op, const patchcut_ncut_params* params, int64_t batch, int64_t n,
                         int64_t d, int64_t k) {
  require_sizes(op, {batch, n, d});
  require_sizes(op, {batch, n, n});
  require_struct(op, "params", params);
  require(params->graph >= PATCHCUT_GRAPH_AFFINITY && params->graph <= PATCHCUT_GRAPH_COSINE, op,
          "graph must be a patchcut_cut_graph, got " + std::to_string(params->graph));
  require(d > 0, op, "features must have at least one column");
  require(params->graph != PATCHCUT_GRAPH_AFFINITY || n == d, op, "weights must be [n, n]");
  require(k >= 1 && k < n, op,
          "k must be 1 to n - 1 = " + std::to_string(n - 1) + ", got " + std::to_string(k));
  require(std::isfinite(params->threshold) && params->threshold >= 0, op, "threshold must be at least 0");
  require(params->floor >= 0 && params->floor < 1, op, "floor must be at least 0 and below 1");
  require(std::isfinite(params->offset) && params->offset >= 0, op, "offset must be at least 0");
  require(params->iterations >= 1, op,
          "iterations must be at least 1, got " + std::to_string(params->iterations));
  require(std::isfinite(params->tolerance) && params->tolerance >= 0, op, "tolerance must be at least 0");
}

patchcut_status patchcut_ncut(const void* features, int32_t dtype, int64_t batch, int64_t n, int64_t d,
                              int64_t k, const float* start, const patchcut_ncut_params* params,
                              float* eigenvalues, float* vectors, float* residuals, int32_t* products,
                              const patchcut_context* context) {
  return guard_op(context, [&] {
    check_cut(kOp, params, batch, n, d, k);
    require_dtype(kOp, "dtype", dtype);
    Arrays arrays(kOp);
    arrays.input("features", features, batch * n * d, dtype);
    arrays.optional_input("start", start, batch * n * k);
    arrays.output("eigenvalues", eigenvalues, batch * k);
    arrays.output("vectors", vectors, batch * n * k);
    arrays.output("residuals", residuals, batch * k);
    arrays.optional_output("products", products, batch);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        ncut_cuda(features, dtype, batch, n, d, k, start, *params, eigenvalues, vectors, residuals, products,
                  queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const FloatRows item(features, dtype, b * n * d, n * d);
      ncut_cpu(kOp, item.data(), n, d, k, start == nullptr ? nullptr : start + b * n * k, *params,
               eigenvalues + b * k, vectors + b * n * k, residuals + b * k,
               products == nullptr ? nullptr : products + b);
    }
  });
}
