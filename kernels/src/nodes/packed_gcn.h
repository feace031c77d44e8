#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cpu/simd.h"
#include "nodes/gcn_forward.h"

namespace patchcut {

struct FreeFloats {
  void operator()(float* floats) const { std::free(floats); }
};

// 64-byte aligned.
using Floats = std::unique_ptr<float, FreeFloats>;

struct PackedLayer {
  Floats weight;  // [inputs, outputs] in panels: theta of a graph layer
  Floats root;    // [inputs, outputs] in panels, or null
  Floats bias;    // [outputs]
  int64_t inputs;
  int64_t outputs;
};

struct PackedGcn {
  const SimdTable& simd;  // that the panels are laid out for
  bool normalize;
  Floats shift;  // [d]
  Floats scale;  // [d]
  std::vector<PackedLayer> layers;
  std::vector<PackedLayer> mlp;
  float temperature;
  int64_t width;  // the largest number of outputs
};

}  // namespace patchcut
