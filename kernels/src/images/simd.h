#pragma once

#include "cpu/simd.h"

namespace patchcut {

// The hot loops of preprocess.
struct ImageTable {
  PATCHCUT_PER_ISA(ImageTable);

  // out[i] = sum over t of weights[t] * rows[t][i]
  virtual void blend_bytes(int64_t count, int64_t taps, const uint8_t* const* rows, const float* weights,
                           float* out) const = 0;
  // planes[c][x] = scale[c] * (sum over t of weights[x, t] * row[starts[x] + t, c]) + offset[c]; row holds
  // three interleaved channels and one float of padding.
  virtual void resize_row(int64_t width, const float* row, const int32_t* starts, const int32_t* counts,
                          const float* weights, int64_t weight_stride, const float* scale,
                          const float* offset, float* const* planes) const = 0;
};

}  // namespace patchcut
