#pragma once

#include "cpu/simd.h"

namespace patchcut {

constexpr int64_t kMaxRows = 16;  // of a row group

// The hot loops of ncut.
struct CutTable {
  PATCHCUT_PER_ISA(CutTable);

  const int64_t row_group;  // rows that the functions take at most

  constexpr explicit CutTable(int64_t group) : row_group(group) {}
  // sums[r] += a[r, count] . x
  virtual void dot_rows(int64_t rows, int64_t count, const float* a, int64_t lda, const float* x,
                        float* sums) const = 0;
  // y[count] += sum over r of scales[r] * a[r, count]
  virtual void add_rows(int64_t rows, int64_t count, const float* a, int64_t lda, const float* scales,
                        float* y) const = 0;
  // Both for every vector v: sums[v, r] += a[r, count] . x[v], y[v] += sum over r of scales[v, r] * a[r]. x,
  // scales and y have the row stride `stride`, sums kMaxRows.
  virtual void dot_add_rows(int64_t rows, int64_t count, const float* a, int64_t lda, int64_t vectors,
                            int64_t stride, const float* x, const float* scales, float* sums,
                            float* y) const = 0;
};

}  // namespace patchcut
