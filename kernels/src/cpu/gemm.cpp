#include "cpu/gemm.h"

#include <algorithm>

namespace patchcut {

int64_t packed_size(const SimdTable& simd, int64_t k, int64_t n) {
  return (n + simd.panel - 1) / simd.panel * simd.panel * k;
}

void pack_columns(const SimdTable& simd, int64_t k, int64_t n, const float* b, float* packed) {
  for (int64_t j = 0; j < n; j += simd.panel) {
    const int64_t cols = std::min(simd.panel, n - j);
    for (int64_t p = 0; p < k; ++p, packed += simd.panel) {
      std::copy_n(b + p * n + j, cols, packed);
      std::fill(packed + cols, packed + simd.panel, 0.0f);
    }
  }
}

void pack_rows(const SimdTable& simd, int64_t k, int64_t n, const float* rows, float* packed) {
  for (int64_t j = 0; j < n; j += simd.panel) {
    simd.pack_transposed(std::min(simd.panel, n - j), k, rows + j * k, k, packed + j * k);
  }
}

void gemm_rows(const SimdTable& simd, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
               const float* packed, float* c, int64_t ldc) {
  for (int64_t j = 0; j < n; j += simd.panel) {
    simd.gemm_panel(m, k, a, lda, 1, packed + j * k, c + j, ldc, std::min(simd.panel, n - j));
  }
}

}  // namespace patchcut
