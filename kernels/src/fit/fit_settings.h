// What gnn_fit does alike on every device.
#pragma once

#include <cmath>
#include <cstdint>

#include "fit/simd.h"

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

}  // namespace patchcut
