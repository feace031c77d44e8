// Positions of a resized axis in its source, exactly: in integers, so that no device needs float64.
#pragma once

#include "cuda/launch.cuh"

namespace patchcut {

// Between source positions `low` and `high`, `fraction` of the way.
struct LinearPosition {
  int low;
  int high;
  float fraction;
};

// Of output position i: (i + 1/2) * source / size - 1/2, inside [0, source - 1].
__device__ __forceinline__ LinearPosition linear_position(int i, int source, int size) {
  const int64_t numerator = (2 * static_cast<int64_t>(i) + 1) * source - size;
  const int64_t denominator = 2 * static_cast<int64_t>(size);
  if (numerator <= 0) return {0, min(1, source - 1), 0.0f};
  const int low = static_cast<int>(numerator / denominator);
  if (low >= source - 1) return {source - 1, source - 1, 0.0f};
  const float fraction = static_cast<float>(numerator - low * denominator) / static_cast<float>(denominator);
  return {low, low + 1, fraction};
}

}  // namespace patchcut
