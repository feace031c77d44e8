#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/simd.h"
#include "cpu/thread_pool.h"

namespace patchcut {

// Rows that one task of a parallel product takes.
constexpr int64_t kRowBlock = 32;

// Splits n rows into blocks of kRowBlock and calls body(first_row, rows) on the pool.
template <class Body>
void for_row_blocks(int64_t n, int64_t cycles_per_row, const Body& body) {
  const int64_t blocks = (n + kRowBlock - 1) / kRowBlock;
  parallel_for(blocks, kRowBlock * cycles_per_row, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kRowBlock;
      body(first, std::min(kRowBlock, n - first));
    }
  });
}

// Floats of b[k, n] packed into panels.
int64_t packed_size(const SimdTable& simd, int64_t k, int64_t n);

// packed[ceil(n / panel), k, panel] from b[k, n], zeros past column n.
void pack_columns(const SimdTable& simd, int64_t k, int64_t n, const float* b, float* packed);

// The same of the transpose of rows[n, k].
void pack_rows(const SimdTable& simd, int64_t k, int64_t n, const float* rows, float* packed);

// c[m, n] = a[m, k] @ b, b packed; on the calling thread.
void gemm_rows(const SimdTable& simd, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
               const float* packed, float* c, int64_t ldc);

}  // namespace patchcut
