#pragma once

#include <cstdint>

#include "cpu/isa.h"

// A table of hot loops is an abstract class. The simd.cpp beside it, compiled once for each instruction set,
// implements it and defines one of these functions: the one that PATCHCUT_ISA names.
#define PATCHCUT_PER_ISA(Table)   \
  static const Table& baseline(); \
  static const Table& avx2();     \
  static const Table& avx512();   \
  static const Table& neon()

namespace patchcut {

template <class Table>
const Table& table_of([[maybe_unused]] Isa isa) {
#if defined(__aarch64__)
  return Table::neon();
#else
#if defined(__x86_64__)
  if (isa == Isa::avx512) return Table::avx512();
  if (isa == Isa::avx2) return Table::avx2();
#endif
  return Table::baseline();
#endif
}

// The hot loops that ops of several groups share.
struct SimdTable {
  PATCHCUT_PER_ISA(SimdTable);

  const Isa isa;
  const int64_t lanes;  // floats of a vector
  const int64_t panel;  // columns of a packed panel, rows and columns of an affinity tile

  constexpr SimdTable(Isa own_isa, int64_t floats, int64_t columns)
      : isa(own_isa), lanes(floats), panel(columns) {}

  // The table of a group, for the same instruction set.
  template <class Table>
  const Table& get() const {
    return table_of<Table>(isa);
  }

  // c[m, cols] = a[m, k] @ packed[k, panel], of which the first `cols` columns are kept, and those past them
  // computed only as far as they share a vector; a[i, p] lies at a[i * lda + p * step].
  virtual void gemm_panel(int64_t m, int64_t k, const float* a, int64_t lda, int64_t step,
                          const float* packed, float* c, int64_t ldc, int64_t cols) const = 0;
  // c[m, panel] = a[m, k] @ packed[k, panel], each cell a pair of int16 that add both their products. All
  // sums must fit int32, and no int16 be -2^15.
  virtual void gemm_pairs(int64_t m, int64_t k, const int32_t* a, int64_t lda, const int32_t* packed,
                          int32_t* c, int64_t ldc) const = 0;
  // packed[k, panel] = a[rows, k] transposed, zeros past `rows`.
  virtual void pack_transposed(int64_t rows, int64_t k, const float* a, int64_t lda, float* packed) const = 0;
  virtual bool all_finite(int64_t count, const float* x) const = 0;
  // The largest |x|, 0 of none; NaN where one is NaN.
  virtual float largest_magnitude(int64_t count, const float* x) const = 0;
  // IEEE half precision; every half is a float.
  virtual void half_to_float(int64_t count, const uint16_t* halves, float* out) const = 0;
  // To the nearest, ties to even; returns whether all halves are finite.
  virtual bool float_to_half(int64_t count, const float* x, uint16_t* halves) const = 0;
  virtual float sum(int64_t count, const float* x) const = 0;
  virtual float sum_squares(int64_t count, const float* x) const = 0;
  // out = x * scale
  virtual void scale_row(int64_t count, const float* x, float scale, float* out) const = 0;
  // out = x * y
  virtual void multiply_row(int64_t count, const float* x, const float* y, float* out) const = 0;
  // x[rows, k] = softmax(x * sharpness) by row.
  virtual void softmax_rows(int64_t rows, int64_t k, float sharpness, float* x) const = 0;
};

// Of the instruction set in use.
inline const SimdTable& simd() { return table_of<SimdTable>(isa_in_use()); }

}  // namespace patchcut
