#include "nodes/packed_gcn.h"

#include <algorithm>
#include <new>

#include "cpu/gemm.h"

namespace patchcut {
namespace {

Floats allocate(int64_t count) {
  constexpr size_t kAlignment = 64;
  const size_t bytes = static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(float);
  void* memory = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (memory == nullptr) throw std::bad_alloc();
  return Floats(static_cast<float*>(memory));
}

Floats copy(const float* values, int64_t count) {
  Floats floats = allocate(count);
  std::copy_n(values, count, floats.get());
  return floats;
}

Floats pack(const SimdTable& simd, int64_t inputs, int64_t outputs, const float* matrix) {
  if (matrix == nullptr) return nullptr;
  Floats panels = allocate(packed_size(simd, inputs, outputs));
  pack_columns(simd, inputs, outputs, matrix, panels.get());
  return panels;
}

}  // namespace

std::shared_ptr<const PackedGcn> pack_gcn(const patchcut_gcn_weights& weights) {
  const SimdTable& table = simd();
  const auto packed = std::make_shared<PackedGcn>(PackedGcn{table,
                                                            weights.normalize != 0,
                                                            copy(weights.shift, weights.d),
                                                            copy(weights.scale, weights.d),
                                                            {},
                                                            {},
                                                            weights.temperature,
                                                            0});
  const auto layer = [&](const float* weight, const float* root, const float* bias, int64_t inputs,
                         int64_t outputs) {
    packed->width = std::max(packed->width, outputs);
    return PackedLayer{pack(table, inputs, outputs, weight), pack(table, inputs, outputs, root),
                       copy(bias, outputs), inputs, outputs};
  };
  for (int64_t l = 0; l < weights.layer_count; ++l) {
    const patchcut_gcn_layer& graph = weights.layers[l];
    packed->layers.push_back(layer(graph.theta, graph.root, graph.bias, graph.inputs, graph.outputs));
  }
  for (int64_t l = 0; l < weights.mlp_count; ++l) {
    const patchcut_linear_layer& linear = weights.mlp[l];
    packed->mlp.push_back(layer(linear.weight, nullptr, linear.bias, linear.inputs, linear.outputs));
  }
  return packed;
}

}  // namespace patchcut
