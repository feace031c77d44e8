#pragma once

#include <cstdint>

#include "simd.h"

namespace patchcut {

// Rows that one task of a parallel product takes.
constexpr int64_t kRowBlock = 32;

// Floats of b[k, n] packed into panels.
int64_t packed_size(const SimdTable& simd, int64_t k, int64_t n);

// packed[ceil(n / panel), k, panel] from b[k, n], zeros past column n.
void pack_columns(const SimdTable& simd, int64_t k, int64_t n, const float* b, float* packed);

// c[m, n] = a[m, k] @ b, b packed; on the calling thread.
void gemm_rows(const SimdTable& simd, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
               const float* packed, float* c, int64_t ldc);

}  // namespace patchcut
