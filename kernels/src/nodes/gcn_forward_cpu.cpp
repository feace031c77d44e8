#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <utility>

#include "cpu/errors.h"
#include "cpu/feature_rows.h"
#include "cpu/gemm.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "cpu/thread_pool.h"
#include "nodes/gcn_forward.h"
#include "nodes/packed_gcn.h"
#include "nodes/simd.h"

namespace patchcut {
namespace {

// h[n, d] = (features, normalised where asked, - shift) * scale
void standardize(const PackedGcn& weights, const float* features, int64_t n, int64_t d, float* h) {
  const SimdTable& simd = weights.simd;
  const NodeTable& loops = simd.get<NodeTable>();
  for_row_blocks(n, d, [&](int64_t first, int64_t rows) {
    for (int64_t i = first; i < first + rows; ++i) {
      const float* row = features + i * d;
      if (weights.normalize) {
        normalize_row(simd, d, row, h + i * d);
        row = h + i * d;
      }
      loops.standardize_row(d, row, weights.shift.get(), weights.scale.get(), h + i * d);
    }
  });
}

// scales[i] = D_i^-1/2, D = rowsum(W) + 1
void inverse_root_degrees(const SimdTable& simd, const float* affinity, const float* degrees, int64_t n,
                          float* scales) {
  if (degrees != nullptr) {
    std::copy_n(degrees, n, scales);
  } else {
    for_row_blocks(n, n / 8, [&](int64_t first, int64_t rows) {
      for (int64_t i = first; i < first + rows; ++i) scales[i] = simd.sum(n, affinity + i * n);
    });
  }
  require_finite(simd.all_finite(n, scales), "gcn_forward", "affinity");
  const float* smallest = std::min_element(scales, scales + n);
  require(*smallest > -1.0f, "gcn_forward",
          "affinity must have row sums above -1, got " + std::to_string(*smallest));
  for (int64_t i = 0; i < n; ++i) scales[i] = 1.0f / std::sqrt(scales[i] + 1.0f);
}

// out = elu(D^-1/2 (W + I) D^-1/2 (h theta) + h root + bias). W (h theta) reads W once, since theta is
// narrow.
void gcn_layer(const SimdTable& simd, const PackedLayer& layer, const float* affinity, const float* scales,
               int64_t n, const float* h, float* out) {
  const NodeTable& loops = simd.get<NodeTable>();
  const int64_t inputs = layer.inputs;
  const int64_t outputs = layer.outputs;
  Scratch scratch;
  float* messages = scratch.take<float>(n * outputs);  // D^-1/2 h theta
  float* packed_messages = scratch.take<float>(packed_size(simd, n, outputs));
  float* from_root = layer.root == nullptr ? nullptr : scratch.take<float>(n * outputs);  // h root
  for_row_blocks(n, inputs * outputs / 16, [&](int64_t first, int64_t rows) {
    float* block = messages + first * outputs;
    gemm_rows(simd, rows, outputs, inputs, h + first * inputs, inputs, layer.weight.get(), block, outputs);
    for (int64_t i = 0; i < rows; ++i) {
      simd.scale_row(outputs, block + i * outputs, scales[first + i], block + i * outputs);
    }
    if (from_root == nullptr) return;
    gemm_rows(simd, rows, outputs, inputs, h + first * inputs, inputs, layer.root.get(),
              from_root + first * outputs, outputs);
  });
  pack_columns(simd, n, outputs, messages, packed_messages);
  for_row_blocks(n, n * outputs / 32, [&](int64_t first, int64_t rows) {
    Scratch block_scratch;
    float* gathered = block_scratch.take<float>(rows * outputs);
    gemm_rows(simd, rows, outputs, n, affinity + first * n, n, packed_messages, gathered, outputs);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = (first + i) * outputs;
      loops.gcn_row(outputs, gathered + i * outputs, messages + at, scales[first + i],
                    from_root == nullptr ? nullptr : from_root + at, layer.bias.get(), out + at);
    }
  });
}

// One block of rows goes through all linear layers while it is in cache.
void classify_rows(const PackedGcn& weights, int64_t rows, const float* h, float* logits) {
  const SimdTable& simd = weights.simd;
  const NodeTable& loops = simd.get<NodeTable>();
  Scratch scratch;
  float* spare[2] = {scratch.take<float>(rows * weights.width), scratch.take<float>(rows * weights.width)};
  for (size_t l = 0; l < weights.mlp.size(); ++l) {
    const PackedLayer& layer = weights.mlp[l];
    const bool last = l + 1 == weights.mlp.size();
    float* out = last ? logits : spare[l % 2];
    gemm_rows(simd, rows, layer.outputs, layer.inputs, h, layer.inputs, layer.weight.get(), out,
              layer.outputs);
    for (int64_t i = 0; i < rows; ++i) {
      loops.bias_row(layer.outputs, layer.bias.get(), !last, out + i * layer.outputs);
    }
    h = out;
  }
}

// Returns whether all logits are finite.
bool classify(const PackedGcn& weights, int64_t n, const float* h, float* assignment) {
  const SimdTable& simd = weights.simd;
  int64_t multiplications = 0;
  for (const PackedLayer& layer : weights.mlp) {
    multiplications += layer.inputs * std::max(layer.outputs, simd.panel);
  }
  const int64_t k = weights.mlp.back().outputs;
  const int64_t inputs = weights.mlp.front().inputs;
  std::atomic<bool> finite{true};
  for_row_blocks(n, multiplications / 16, [&](int64_t first, int64_t rows) {
    float* block = assignment + first * k;
    classify_rows(weights, rows, h + first * inputs, block);
    if (!simd.all_finite(rows * k, block)) return finite.store(false, std::memory_order_relaxed);
    simd.softmax_rows(rows, k, 1.0f / weights.temperature, block);
  });
  return finite;
}

}  // namespace

void gcn_forward_cpu(const float* features, const float* affinity, const float* degrees, int64_t n, int64_t d,
                     const PackedGcn& weights, float* assignment) {
  if (n == 0) return;
  const SimdTable& table = weights.simd;
  Scratch scratch;
  const int64_t width = std::max(d, weights.width);
  float* h = scratch.take<float>(n * width);
  float* next = scratch.take<float>(n * width);
  float* scales = scratch.take<float>(n);
  standardize(weights, features, n, d, h);
  if (!weights.layers.empty()) inverse_root_degrees(table, affinity, degrees, n, scales);
  for (const PackedLayer& layer : weights.layers) {
    gcn_layer(table, layer, affinity, scales, n, h, next);
    std::swap(h, next);
  }
  if (classify(weights, n, h, assignment)) return;
  // Every layer lets NaN and infinities through, so that the features are searched only now.
  require_finite(table.all_finite(n * d, features), "gcn_forward", "features");
  require_finite(false, "gcn_forward", "affinity and the logits it leads to");
}

}  // namespace patchcut
