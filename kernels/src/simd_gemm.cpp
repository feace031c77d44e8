#include "simd_functions.h"
#include "simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

// Depth of one pass: a panel of this depth stays in the L1 cache.
constexpr int64_t kDepth = 256;

// c[kTileRows, kPanel] (+)= rows of a times a packed panel; the accumulators stay in registers.
template <bool accumulate>
void multiply_tile(int64_t k, const float* const* a, const float* packed, float* c, int64_t ldc) {
  Vec acc[kTileRows][kPanelVectors] = {};
  if (accumulate) {
#pragma GCC unroll 8
    for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc[i][v] = load(c + i * ldc + v * kLanes);
    }
  }
  for (int64_t p = 0; p < k; ++p, packed += kPanel) {
    Vec b[kPanelVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) b[v] = load(packed + v * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc[i][v] += a[i][p] * b[v];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) store(c + i * ldc + v * kLanes, acc[i][v]);
  }
}

void copy_tile(int64_t rows, int64_t cols, const float* from, int64_t ldf, float* to, int64_t ldt) {
  for (int64_t i = 0; i < rows; ++i) {
    __builtin_memcpy(to + i * ldt, from + i * ldf, static_cast<uint64_t>(cols) * sizeof(float));
  }
}

void multiply_rows(int64_t rows, int64_t k, const float* a, int64_t lda, const float* packed, float* c,
                   int64_t ldc, int64_t cols, bool accumulate) {
  const float* a_rows[kTileRows];
  for (int i = 0; i < kTileRows; ++i) a_rows[i] = a + (i < rows ? i : rows - 1) * lda;
  const auto multiply = accumulate ? multiply_tile<true> : multiply_tile<false>;
  if (rows == kTileRows && cols == kPanel) return multiply(k, a_rows, packed, c, ldc);
  float edge[kTileRows * kPanel] = {};
  if (accumulate) copy_tile(rows, cols, c, ldc, edge, kPanel);
  multiply(k, a_rows, packed, edge, kPanel);
  copy_tile(rows, cols, edge, kPanel, c, ldc);
}

}  // namespace

void gemm_panel(int64_t m, int64_t k, const float* a, int64_t lda, const float* packed, float* c, int64_t ldc,
                int64_t cols) {
  for (int64_t p = 0; p < k; p += kDepth) {
    const int64_t depth = k - p < kDepth ? k - p : kDepth;
    for (int64_t i = 0; i < m; i += kTileRows) {
      const int64_t rows = m - i < kTileRows ? m - i : kTileRows;
      multiply_rows(rows, depth, a + i * lda + p, lda, packed + p * kPanel, c + i * ldc, ldc, cols, p > 0);
    }
  }
}

void pack_transposed(int64_t rows, int64_t k, const float* a, int64_t lda, float* packed) {
  if (rows == kPanel) {
    for (int64_t p = 0; p < k; ++p) {
      for (int i = 0; i < kPanel; ++i) packed[p * kPanel + i] = a[i * lda + p];
    }
    return;
  }
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t i = 0; i < kPanel; ++i) packed[p * kPanel + i] = i < rows ? a[i * lda + p] : 0.0f;
  }
}

float finish_affinity_tile(int64_t rows, float* tile, float limit, float threshold, bool sparse,
                           float* row_sums, float* column_sums) {
  Vec columns[kPanelVectors] = {};
  Vec largest = load(tile);
  for (int64_t i = 0; i < rows; ++i) {
    Vec row{};
    for (int v = 0; v < kPanelVectors; ++v) {
      float* entry = tile + i * kPanel + v * kLanes;
      Vec x = load(entry);
      x = x > limit ? Vec{} + limit : x;
      x = x < -limit ? Vec{} - limit : x;
      if (sparse) x = x > threshold ? x : Vec{};
      store(entry, x);
      row += x;
      columns[v] += x;
      largest = x > largest ? x : largest;
    }
    row_sums[i] = add_lanes(row);
  }
  for (int v = 0; v < kPanelVectors; ++v) store(column_sums + v * kLanes, columns[v]);
  float maximum = largest[0];
  for (int lane = 1; lane < kLanes; ++lane) maximum = largest[lane] > maximum ? largest[lane] : maximum;
  return maximum;
}

void store_transposed(int64_t rows, int64_t cols, const float* tile, float* out, int64_t ldo) {
  for (int64_t j = 0; j < cols; ++j) {
    for (int64_t i = 0; i < rows; ++i) out[j * ldo + i] = tile[i * kPanel + j];
  }
}

}  // namespace patchcut::PATCHCUT_ISA
