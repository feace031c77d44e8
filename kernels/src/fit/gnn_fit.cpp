#include "fit/gnn_fit.h"

#include <cmath>

#include "c_api/c_face.h"
#include "c_api/half_rows.h"
#include "fit/fit_settings.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "gnn_fit";
constexpr int64_t kLargestWidth = 65536;  // of a layer

void check(const patchcut_gnn_fit_params* params) {
  require_struct(kOp, "params", params);
  require(params->loss == PATCHCUT_NCUT || params->loss == PATCHCUT_CC, kOp,
          "loss must be PATCHCUT_NCUT or PATCHCUT_CC, got " + std::to_string(params->loss));
  require_rounds(kOp, "steps", params->steps, 1);
  require(std::isfinite(params->learning_rate) && params->learning_rate > 0, kOp,
          "learning_rate must be above 0");
  require(std::isfinite(params->tolerance) && params->tolerance >= 0, kOp, "tolerance must be at least 0");
  require(params->dropout >= 0 && params->dropout < 1, kOp, "dropout must be in [0, 1)");
  const auto is_width = [](int64_t width) { return width > 0 && width <= kLargestWidth; };
  require(is_width(params->graph_width) && is_width(params->hidden_width), kOp, "widths must be 1 to 65536");
}

void add(const patchcut_gnn_fit_weights* weights, const patchcut_gnn_fit_params& params, int64_t d, int64_t k,
         Arrays& arrays) {
  if (weights == nullptr) return;
  require_struct(kOp, "weights", weights);
  arrays.input("theta", weights->theta, d * params.graph_width);
  arrays.input("theta_bias", weights->theta_bias, params.graph_width);
  arrays.input("hidden", weights->hidden, params.graph_width * params.hidden_width);
  arrays.input("hidden_bias", weights->hidden_bias, params.hidden_width);
  arrays.input("logits", weights->logits, params.hidden_width * k);
  arrays.input("logits_bias", weights->logits_bias, k);
}

}  // namespace

patchcut_status patchcut_gnn_fit(const void* features, int32_t dtype, const void* affinity,
                                 int32_t affinity_dtype, int64_t batch, int64_t n, int64_t d, int64_t k,
                                 const patchcut_gnn_fit_weights* weights,
                                 const patchcut_gnn_fit_params* params, float* assignment, float* losses,
                                 float* fitted, const patchcut_context* context) {
  return guard_op(context, [&] {
    check(params);
    require_sizes(kOp, {batch, n, d});
    require_sizes(kOp, {batch, n, n});
    require_sizes(kOp, {batch, n, k});
    require_sizes(kOp, {batch, params->steps});
    require_sizes(kOp, {n, params->graph_width});
    require_sizes(kOp, {n, params->hidden_width});
    require_sizes(kOp, {d, params->graph_width});
    require_sizes(kOp, {params->graph_width, params->hidden_width});
    require_sizes(kOp, {params->hidden_width, k});
    require(n > 0 && d > 0 && k > 0, kOp, "sizes n, d and k must be at least 1");
    require(k <= kLargestWidth, kOp, "k must be at most 65536, got " + std::to_string(k));
    require_dtype(kOp, "dtype", dtype);
    require_dtype(kOp, "affinity_dtype", affinity_dtype);
    Arrays arrays(kOp);
    arrays.input("features", features, batch * n * d, dtype);
    arrays.input("affinity", affinity, batch * n * n, affinity_dtype);
    add(weights, *params, d, k, arrays);
    arrays.output("assignment", assignment, batch * n * k);
    arrays.output("losses", losses, batch * params->steps);
    const int64_t parameters = fit_parameters(d, k, *params);
    require_sizes(kOp, {batch, parameters});
    arrays.optional_output("fitted", fitted, batch * parameters);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        gnn_fit_cuda(features, dtype, affinity, affinity_dtype, batch, n, d, k, *params, weights, assignment,
                     losses, fitted, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const FloatRows item(features, dtype, b * n * d, n * d);
      const FloatRows edges(affinity, affinity_dtype, b * n * n, n * n);
      gnn_fit_cpu(item.data(), edges.data(), n, d, k, *params, weights, assignment + b * n * k,
                  losses + b * params->steps, fitted == nullptr ? nullptr : fitted + b * parameters);
    }
  });
}
