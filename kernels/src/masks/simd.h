#pragma once

#include "cpu/simd.h"

namespace patchcut {

constexpr int64_t kSpanPadding = 16;  // at least the lanes of a vector

// The hot loops of upsample_argmax.
struct MaskTable {
  PATCHCUT_PER_ISA(MaskTable);

  // labels[x] = names[argmax_c base[c] + slope[c] * fraction[x]], the first c on a tie. Reads and writes
  // whole vectors: the arrays need kSpanPadding elements after the last. confidence may be null.
  virtual void argmax_span(int64_t count, const float* fraction, int64_t classes, const float* base,
                           const float* slope, const int32_t* names, int32_t* labels,
                           float* confidence) const = 0;
};

}  // namespace patchcut
