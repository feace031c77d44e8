#pragma once

#include "cpu/simd.h"

namespace patchcut {

// One tile of an affinity, and where it goes.
struct AffinityTile {
  const float* products;  // [panel, panel], zeros past `rows` and `columns`
  int64_t rows;
  int64_t columns;
  float limit;      // entries are clamped to +-limit
  float threshold;  // entries at or below it become 0, where `sparse`
  bool sparse;
  float* out;     // [rows, columns] within rows of `stride`
  float* mirror;  // [columns, panel] within rows of `stride`: the transpose; null on the diagonal
  int64_t stride;
  float* row_sums;     // [panel]
  float* column_sums;  // [panel]
};

// The hot loops of affinity and gcn_forward.
struct NodeTable {
  PATCHCUT_PER_ISA(NodeTable);

  // Writes the tile where it goes; returns its largest entry, or 0 where none is above.
  virtual float finish_affinity_tile(const AffinityTile& tile) const = 0;
  // out = x + offset
  virtual void offset_row(int64_t count, const float* x, float offset, float* out) const = 0;
  // out = (x - shift) * scale
  virtual void standardize_row(int64_t count, const float* x, const float* shift, const float* scale,
                               float* out) const = 0;
  // out = elu(scale * (x + self) + root + bias); root may be null.
  virtual void gcn_row(int64_t count, const float* x, const float* self, float scale, const float* root,
                       const float* bias, float* out) const = 0;
  // x += bias, then elu where asked.
  virtual void bias_row(int64_t count, const float* bias, bool elu, float* x) const = 0;
};

}  // namespace patchcut
