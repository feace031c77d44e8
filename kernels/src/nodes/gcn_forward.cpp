#include "nodes/gcn_forward.h"

#include <cmath>

#include "c_api/c_face.h"
#include "c_api/half_rows.h"
#include "nodes/packed_gcn.h"

using namespace patchcut;

struct patchcut_gcn {
  std::shared_ptr<const PackedGcn> cpu;  // null for one on CUDA
  std::shared_ptr<const CudaGcn> cuda;   // null for one on the CPU
  int64_t layers;
  int64_t d;
  int64_t k;
};

namespace {

constexpr const char* kOp = "gcn_forward";
constexpr const char* kCreate = "gcn_create";

void require_width(int64_t expected, int64_t inputs, int64_t outputs) {
  require_sizes(kCreate, {inputs, outputs});
  require(inputs == expected && outputs > 0, kCreate,
          "a layer must take " + std::to_string(expected) + " inputs and give at least one output, got " +
              std::to_string(inputs) + " and " + std::to_string(outputs));
}

void require_input(const char* name, const float* values, int64_t count) {
  Arrays(kCreate).input(name, values, count);
}

void check(const patchcut_gcn_weights* weights) {
  require_struct(kCreate, "weights", weights);
  require(weights->d > 0 && weights->layer_count >= 0 && weights->mlp_count > 0, kCreate,
          "weights must have d above 0 and at least one linear layer");
  require(weights->temperature > 0 && std::isfinite(weights->temperature) &&
              std::isfinite(1 / weights->temperature),
          kCreate, "temperature must be above 0, with a finite inverse");
  require_input("shift", weights->shift, weights->d);
  require_input("scale", weights->scale, weights->d);
  if (weights->layer_count > 0) require_struct(kCreate, "layers", weights->layers);
  require_struct(kCreate, "mlp", weights->mlp);
  int64_t width = weights->d;
  for (int64_t i = 0; i < weights->layer_count; ++i) {
    const patchcut_gcn_layer& layer = weights->layers[i];
    require_width(width, layer.inputs, layer.outputs);
    require_input("theta", layer.theta, layer.inputs);
    if (layer.root != nullptr) require_input("root", layer.root, layer.inputs);
    require_input("bias", layer.bias, layer.outputs);
    width = layer.outputs;
  }
  for (int64_t i = 0; i < weights->mlp_count; ++i) {
    const patchcut_linear_layer& layer = weights->mlp[i];
    require_width(width, layer.inputs, layer.outputs);
    require_input("weight", layer.weight, layer.inputs);
    require_input("bias", layer.bias, layer.outputs);
    width = layer.outputs;
  }
}

void forward_on_cpu(const void* features, int32_t dtype, const void* affinity, int32_t affinity_dtype,
                    const float* degrees, int64_t batch, int64_t n, const patchcut_gcn& gcn,
                    float* assignment) {
  for (int64_t b = 0; b < batch; ++b) {
    const FloatRows item(features, dtype, b * n * gcn.d, n * gcn.d);
    const bool has_graph = affinity != nullptr;
    const FloatRows edges(affinity, has_graph ? affinity_dtype : PATCHCUT_FLOAT32, has_graph ? b * n * n : 0,
                          n * n);
    gcn_forward_cpu(item.data(), edges.data(), degrees == nullptr ? nullptr : degrees + b * n, n, gcn.d,
                    *gcn.cpu, assignment + b * n * gcn.k);
  }
}

}  // namespace

patchcut_status patchcut_gcn_create(const patchcut_gcn_weights* weights, patchcut_gcn** gcn,
                                    const patchcut_context* context) {
  return guard_op(context, [&] {
    require_struct(kCreate, "gcn", gcn);
    check(weights);
    patchcut_gcn made{nullptr, nullptr, weights->layer_count, weights->d,
                      weights->mlp[weights->mlp_count - 1].outputs};
    if (on_cuda(kCreate, context)) {
      run_on_cuda(kCreate, *context, [&](CudaQueue& queue) {
        if (!queue.only_counts()) made.cuda = upload_gcn(*weights, queue);
      });
    } else {
      made.cpu = pack_gcn(*weights);
    }
    *gcn = new patchcut_gcn(made);
  });
}

void patchcut_gcn_destroy(patchcut_gcn* gcn) { delete gcn; }

const char* patchcut_gcn_isa(const patchcut_gcn* gcn) {
  if (gcn == nullptr) return nullptr;
  return gcn->cpu == nullptr ? "cuda" : name_of(gcn->cpu->simd.isa);
}

patchcut_status patchcut_gcn_forward(const void* features, int32_t dtype, const void* affinity,
                                     int32_t affinity_dtype, const float* degrees, int64_t batch, int64_t n,
                                     const patchcut_gcn* gcn, float* assignment,
                                     const patchcut_context* context) {
  return guard_op(context, [&] {
    require(gcn != nullptr, kOp, "gcn must not be null");
    require_sizes(kOp, {batch, n, gcn->d});
    require_sizes(kOp, {batch, n, n});
    require_dtype(kOp, "dtype", dtype);
    require_dtype(kOp, "affinity_dtype", affinity_dtype);
    Arrays arrays(kOp);
    arrays.input("features", features, batch * n * gcn->d, dtype);
    if (affinity != nullptr || gcn->layers > 0) {
      arrays.input("affinity", affinity, batch * n * n, affinity_dtype);
    }
    arrays.optional_input("degrees", degrees, batch * n);
    arrays.output("assignment", assignment, batch * n * gcn->k);
    const bool cuda = on_cuda(kOp, context);
    require(cuda == (gcn->cuda != nullptr), kOp, "gcn must be made for the device of the context");
    if (cuda) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        gcn_forward_cuda(features, dtype, affinity, affinity_dtype, degrees, batch, n, gcn->d, *gcn->cuda,
                         assignment, queue);
      });
    }
    forward_on_cpu(features, dtype, affinity, affinity_dtype, degrees, batch, n, *gcn, assignment);
  });
}
