#include "cpu/simd_functions.h"
#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

// Depth of one pass: a panel of this depth stays in the L1 cache.
constexpr int64_t kDepth = 256;

// c[kTileRows, kPanel] (+)= rows of a times a packed panel; the accumulators stay in registers.
template <bool accumulate>
void multiply_tile(int64_t k, const float* const* a, int64_t step, const float* packed, float* c,
                   int64_t ldc) {
  Vec acc[kTileRows][kPanelVectors] = {};
  if (accumulate) {
#pragma GCC unroll 8
    for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) acc[i][v] = load(c + i * ldc + v * kLanes);
    }
  }
  for (int64_t p = 0; p < k * step; p += step, packed += kPanel) {
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

void multiply_rows(int64_t rows, int64_t k, const float* a, int64_t lda, int64_t step, const float* packed,
                   float* c, int64_t ldc, int64_t cols, bool accumulate) {
  const float* a_rows[kTileRows];
  for (int i = 0; i < kTileRows; ++i) a_rows[i] = a + (i < rows ? i : rows - 1) * lda;
  const auto multiply = accumulate ? multiply_tile<true> : multiply_tile<false>;
  if (rows == kTileRows && cols == kPanel) return multiply(k, a_rows, step, packed, c, ldc);
  float edge[kTileRows * kPanel] = {};
  if (accumulate) copy_tile(rows, cols, c, ldc, edge, kPanel);
  multiply(k, a_rows, step, packed, edge, kPanel);
  copy_tile(rows, cols, edge, kPanel, c, ldc);
}

// out[rows, columns] = the first rows and columns of block[kLanes, kLanes].
inline void store_block(const Vec* block, int64_t rows, int64_t columns, float* out, int64_t stride) {
  if (rows >= kLanes && columns >= kLanes) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) store(out + i * stride, block[i]);
    return;
  }
  if (columns <= 0) return;
  const int64_t count = columns < kLanes ? columns : kLanes;
  for (int64_t i = 0; i < rows && i < kLanes; ++i) store_first(out + i * stride, block[i], count);
}

}  // namespace

void gemm_panel(int64_t m, int64_t k, const float* a, int64_t lda, int64_t step, const float* packed,
                float* c, int64_t ldc, int64_t cols) {
  for (int64_t p = 0; p < k; p += kDepth) {
    const int64_t depth = k - p < kDepth ? k - p : kDepth;
    for (int64_t i = 0; i < m; i += kTileRows) {
      const int64_t rows = m - i < kTileRows ? m - i : kTileRows;
      multiply_rows(rows, depth, a + i * lda + p * step, lda, step, packed + p * kPanel, c + i * ldc, ldc,
                    cols, p > 0);
    }
  }
}

void pack_transposed(int64_t rows, int64_t k, const float* a, int64_t lda, float* packed) {
  for (int64_t p = 0; p < k; p += kLanes) {
    const int64_t depth = k - p < kLanes ? k - p : kLanes;
    for (int64_t r = 0; r < kPanel; r += kLanes) {
      Vec block[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        const float* row = a + (r + i) * lda + p;
        block[i] = r + i >= rows ? Vec{} : depth == kLanes ? load(row) : load_first(row, depth);
      }
      transpose(block);
      for (int64_t i = 0; i < depth; ++i) store(packed + (p + i) * kPanel + r, block[i]);
    }
  }
}

float finish_affinity_tile(const AffinityTile& tile) {
  const Vec zero{};
  const Vec limit = zero + tile.limit;
  const Vec threshold = zero + tile.threshold;
  Vec largest{};
  Vec columns[kPanelVectors] = {};
  for (int64_t i = 0; i < kPanel; i += kLanes) {
    Vec rows{};
    for (int64_t v = 0; v < kPanelVectors; ++v) {
      const int64_t j = v * kLanes;
      Vec block[kLanes];
#pragma GCC unroll 16
      for (int64_t l = 0; l < kLanes; ++l) {
        Vec x = load(tile.products + (i + l) * kPanel + j);
        x = x > limit ? limit : x;
        x = x < -limit ? -limit : x;
        if (tile.sparse) x = x > threshold ? x : zero;
        columns[v] += x;
        largest = x > largest ? x : largest;
        block[l] = x;
      }
      store_block(block, tile.rows - i, tile.columns - j, tile.out + i * tile.stride + j, tile.stride);
      transpose(block);
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) rows += block[l];
      if (tile.mirror == nullptr) continue;
      store_block(block, tile.columns - j, kLanes, tile.mirror + j * tile.stride + i, tile.stride);
    }
    store(tile.row_sums + i, rows);
  }
  for (int v = 0; v < kPanelVectors; ++v) store(tile.column_sums + v * kLanes, columns[v]);
  float maximum = largest[0];
  for (int lane = 1; lane < kLanes; ++lane) maximum = largest[lane] > maximum ? largest[lane] : maximum;
  return maximum;
}

}  // namespace patchcut::PATCHCUT_ISA
