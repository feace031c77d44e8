// What gnn_fit does alike on every device.
#pragma once

#include <cmath>
#include <cstdint>

#include "cpu/host_device.h"
#include "fit/simd.h"
#include "patchcut/patchcut.h"

namespace patchcut {

// Layers of the network: the graph layer, the hidden one, the logits.
constexpr int kFitLayers = 3;
// Numbers of the random streams: 2 l and 2 l + 1 draw weight and bias of layer l, this and the next ones what
// each pass drops.
constexpr uint64_t kFitDropoutStream = 2 * kFitLayers;

struct WeightBounds {
  float weight;
  float bias;
};

// Between which a layer's first values are drawn: as torch-geometric does for a graph convolution and torch
// for a linear layer.
inline WeightBounds weight_bounds(int layer, int64_t inputs, int64_t outputs) {
  if (layer == 0) return {static_cast<float>(std::sqrt(6.0 / static_cast<double>(inputs + outputs))), 0.0f};
  const float bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(inputs)));
  return {bound, bound};
}

// Of a network: weight and bias of each layer, one after the other.
inline int64_t fit_parameters(int64_t d, int64_t k, const patchcut_gnn_fit_params& params) {
  return (d + 1) * params.graph_width + (params.graph_width + 1) * params.hidden_width +
         (params.hidden_width + 1) * k;
}

// torch's settings, with the epsilon that the kernels have.
inline AdamWStep adamw_step(float learning_rate, int64_t step) {
  constexpr double kBeta1 = 0.9;
  constexpr double kBeta2 = 0.999;
  constexpr double kWeightDecay = 0.01;
  const double count = static_cast<double>(step) + 1.0;
  return {static_cast<float>(1.0 - learning_rate * kWeightDecay),
          static_cast<float>(learning_rate / (1.0 - std::pow(kBeta1, count))),
          static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(kBeta2, count)))};
}

// Whether a fit ends after a pass.
PATCHCUT_HOST_DEVICE inline bool improves_little(float tolerance, float loss_before, float loss) {
  return tolerance > 0.0f && loss_before - loss < tolerance * std::fabs(loss);
}

}  // namespace patchcut
