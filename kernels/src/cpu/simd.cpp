#include "cpu/simd.h"

#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

typedef int16_t PairVec __attribute__((vector_size(2 * kLanes * sizeof(int16_t))));

// Depth of one pass: a panel of this depth stays in the L1 cache.
constexpr int64_t kDepth = 256;

// Rows of a whose products with `vectors` of a panel stay in registers: enough sums to hide the latency of
// one.
constexpr int tile_rows(int vectors) { return vectors * kTileRows < 8 ? 8 : kTileRows; }

// What a panel holds, and what its cells add to sums: floats, or pairs of int16 whose sums are int32.
struct FloatCells {
  using Cell = float;
  using Cells = Vec;
  static void add_products(Vec& sum, float a, Vec b) { sum += a * b; }
};

struct PairCells {
  using Cell = int32_t;
  using Cells = IntVec;
  static void add_products(IntVec& sum, int32_t a, IntVec b) {
    const IntVec all = IntVec{} + a;
#if defined(__AVX512BW__) && defined(__clang__)
    sum += reinterpret_cast<IntVec>(
        __builtin_ia32_pmaddwd512(reinterpret_cast<PairVec>(all), reinterpret_cast<PairVec>(b)));
#elif defined(__AVX512BW__)
    sum += reinterpret_cast<IntVec>(__builtin_ia32_pmaddwd512_mask(
        reinterpret_cast<PairVec>(all), reinterpret_cast<PairVec>(b), IntVec{}, 0xffff));
#elif defined(__AVX2__)
    sum += __builtin_ia32_pmaddwd256(reinterpret_cast<PairVec>(all), reinterpret_cast<PairVec>(b));
#elif defined(__SSE2__)
    sum += __builtin_ia32_pmaddwd128(reinterpret_cast<PairVec>(all), reinterpret_cast<PairVec>(b));
#else
    sum += (all << 16 >> 16) * (b << 16 >> 16) + (all >> 16) * (b >> 16);
#endif
  }
};

// c[tile_rows, vectors * kLanes] (+)= rows of a times the first vectors of a packed panel.
template <class Kind, bool accumulate, int vectors>
void multiply_tile(int64_t k, const typename Kind::Cell* const* a, int64_t step,
                   const typename Kind::Cell* packed, typename Kind::Cell* c, int64_t ldc) {
  using Cells = typename Kind::Cells;
  constexpr int kRows = tile_rows(vectors);
  Cells acc[kRows][vectors] = {};
  if (accumulate) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) acc[i][v] = load(c + i * ldc + v * kLanes);
    }
  }
  for (int64_t p = 0; p < k * step; p += step, packed += kPanel) {
    Cells b[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) b[v] = load(packed + v * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) Kind::add_products(acc[i][v], a[i][p], b[v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(c + i * ldc + v * kLanes, acc[i][v]);
  }
}

template <class Cell>
void copy_tile(int64_t rows, int64_t cols, const Cell* from, int64_t ldf, Cell* to, int64_t ldt) {
  for (int64_t i = 0; i < rows; ++i) {
    __builtin_memcpy(to + i * ldt, from + i * ldf, static_cast<uint64_t>(cols) * sizeof(Cell));
  }
}

template <class Kind, int vectors, class Cell>
void multiply_rows(int64_t rows, int64_t k, const Cell* a, int64_t lda, int64_t step, const Cell* packed,
                   Cell* c, int64_t ldc, int64_t cols, bool accumulate) {
  constexpr int kRows = tile_rows(vectors);
  const Cell* a_rows[kRows];
  for (int i = 0; i < kRows; ++i) a_rows[i] = a + (i < rows ? i : rows - 1) * lda;
  const auto multiply = accumulate ? multiply_tile<Kind, true, vectors> : multiply_tile<Kind, false, vectors>;
  if (rows == kRows && cols == vectors * kLanes) return multiply(k, a_rows, step, packed, c, ldc);
  Cell edge[kRows * vectors * kLanes] = {};
  if (accumulate) copy_tile(rows, cols, c, ldc, edge, vectors * kLanes);
  multiply(k, a_rows, step, packed, edge, vectors * kLanes);
  copy_tile(rows, cols, edge, vectors * kLanes, c, ldc);
}

// The panel's product by as many of its vectors as `cols` need.
template <class Kind, int vectors, class Cell>
void multiply_panel(int64_t m, int64_t k, const Cell* a, int64_t lda, int64_t step, const Cell* packed,
                    Cell* c, int64_t ldc, int64_t cols) {
  if constexpr (vectors > 1) {
    if (cols <= (vectors - 1) * kLanes) {
      return multiply_panel<Kind, vectors - 1>(m, k, a, lda, step, packed, c, ldc, cols);
    }
  }
  constexpr int kRows = tile_rows(vectors);
  for (int64_t p = 0; p < k; p += kDepth) {
    const int64_t depth = k - p < kDepth ? k - p : kDepth;
    for (int64_t i = 0; i < m; i += kRows) {
      const int64_t rows = m - i < kRows ? m - i : kRows;
      multiply_rows<Kind, vectors>(rows, depth, a + i * lda + p * step, lda, step, packed + p * kPanel,
                                   c + i * ldc, ldc, cols, p > 0);
    }
  }
}

// Four accumulators hide the latency of an addition.
template <class Term>
float accumulate(int64_t count, const float* x, const Term& term) {
  Vec total[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int v = 0; v < 4; ++v) total[v] += term(load(x + i + v * kLanes));
  }
  for_each_vector(count - i, [&](int64_t j, auto get, auto) { total[0] += term(get(x + i + j)); });
  return add_lanes((total[0] + total[1]) + (total[2] + total[3]));
}

constexpr int32_t kRebias = (127 - 15) << 23;  // of the exponent, from half to float
constexpr int32_t kHalfInfinity = 0x477ff000;  // bits of 65520, from where halves are infinite

// Subnormal halves are normal floats; the largest exponent stands for infinities and NaN in both.
inline Vec widen(HalfVec halves) {
#if defined(__AVX512F__)
  typedef int16_t Words __attribute__((vector_size(sizeof(HalfVec))));
  constexpr int kRounding = 4;  // as the thread has it; every half is a float
  return __builtin_ia32_vcvtph2ps512_mask(reinterpret_cast<Words>(halves), Vec{}, -1, kRounding);
#elif defined(__F16C__)
  typedef int16_t Words __attribute__((vector_size(sizeof(HalfVec))));
  return __builtin_ia32_vcvtph2ps256(reinterpret_cast<Words>(halves));
#else
  const IntVec bits = __builtin_convertvector(halves, IntVec);
  const IntVec magnitude = bits & 0x7fff;
  const IntVec subnormal = reinterpret_cast<IntVec>(__builtin_convertvector(magnitude, Vec) * 0x1p-24f);
  IntVec wide = (magnitude << 13) + kRebias;
  wide = magnitude >= 0x7c00 ? wide + kRebias : wide;
  wide = magnitude < 0x0400 ? subnormal : wide;
  return reinterpret_cast<Vec>(wide | (bits & 0x8000) << 16);
#endif
}

inline IntVec magnitude_bits(Vec x) { return reinterpret_cast<IntVec>(x) & 0x7fffffff; }

// To the nearest, ties to even. Adding 0.5 rounds at 2^-24, the step of
// subnormal halves.
inline HalfVec narrow(Vec x) {
  const IntVec magnitude = magnitude_bits(x);
  const IntVec subnormal = reinterpret_cast<IntVec>(reinterpret_cast<Vec>(magnitude) + 0.5f) - 0x3f000000;
  const IntVec rebiased = magnitude - kRebias;
  IntVec half = (rebiased + 0x0fff + ((rebiased >> 13) & 1)) >> 13;
  half = magnitude < 0x38800000 ? subnormal : half;
  half = magnitude >= kHalfInfinity ? IntVec{} + 0x7c00 : half;
  half = magnitude > 0x7f800000 ? IntVec{} + 0x7e00 : half;
  return __builtin_convertvector(half | ((reinterpret_cast<IntVec>(x) >> 16) & 0x8000), HalfVec);
}

struct Table final : SimdTable {
  constexpr Table() : SimdTable(Isa::PATCHCUT_ISA, kLanes, kPanel) {}

  void gemm_panel(int64_t m, int64_t k, const float* a, int64_t lda, int64_t step, const float* packed,
                  float* c, int64_t ldc, int64_t cols) const override {
    multiply_panel<FloatCells, kPanelVectors>(m, k, a, lda, step, packed, c, ldc, cols);
  }

  void gemm_pairs(int64_t m, int64_t k, const int32_t* a, int64_t lda, const int32_t* packed, int32_t* c,
                  int64_t ldc) const override {
    multiply_panel<PairCells, kPanelVectors>(m, k, a, lda, 1, packed, c, ldc, kPanel);
  }

  void pack_transposed(int64_t rows, int64_t k, const float* a, int64_t lda, float* packed) const override {
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

  bool all_finite(int64_t count, const float* x) const override {
    // 0 * x is 0 for finite x and NaN otherwise.
    return accumulate(count, x, [](Vec v) { return v * 0.0f; }) == 0.0f;
  }

  float largest_magnitude(int64_t count, const float* x) const override {
    IntVec largest{};  // magnitudes are ordered as their bits are, and NaN comes last
    for_each_vector(count, [&](int64_t i, auto get, auto) {
      const IntVec magnitude = magnitude_bits(get(x + i));
      largest = magnitude > largest ? magnitude : largest;
    });
    int32_t bits = largest[0];
    for (int lane = 1; lane < kLanes; ++lane) bits = largest[lane] > bits ? largest[lane] : bits;
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, sizeof(magnitude));
    return magnitude;
  }

  void half_to_float(int64_t count, const uint16_t* halves, float* out) const override {
    for_each_vector(count, [&](int64_t i, auto get, auto put) { put(out + i, widen(get(halves + i))); });
  }

  bool float_to_half(int64_t count, const float* x, uint16_t* halves) const override {
    IntVec largest{};
    for_each_vector(count, [&](int64_t i, auto get, auto put) {
      const Vec v = get(x + i);
      const IntVec magnitude = magnitude_bits(v);
      largest = magnitude > largest ? magnitude : largest;
      put(halves + i, narrow(v));
    });
    for (int lane = 0; lane < kLanes; ++lane) {
      if (largest[lane] >= kHalfInfinity) return false;
    }
    return true;
  }

  float sum(int64_t count, const float* x) const override {
    return accumulate(count, x, [](Vec v) { return v; });
  }

  float sum_squares(int64_t count, const float* x) const override {
    return accumulate(count, x, [](Vec v) { return v * v; });
  }

  void scale_row(int64_t count, const float* x, float scale, float* out) const override {
    for_each_vector(count, [&](int64_t i, auto get, auto put) { put(out + i, get(x + i) * scale); });
  }

  void multiply_row(int64_t count, const float* x, const float* y, float* out) const override {
    for_each_vector(count, [&](int64_t i, auto get, auto put) { put(out + i, get(x + i) * get(y + i)); });
  }

  void softmax_rows(int64_t rows, int64_t k, float sharpness, float* x) const override {
    for (int64_t i = 0; i < rows; ++i) {
      float* row = x + i * k;
      float largest = row[0];
      for (int64_t c = 1; c < k; ++c) largest = row[c] > largest ? row[c] : largest;
      for (int64_t c = 0; c < k; ++c) row[c] = (row[c] - largest) * sharpness;
    }
    // k is small, so the exponentials run over all rows at once.
    for_each_vector(rows * k, [&](int64_t i, auto get, auto put) { put(x + i, exp_vector(get(x + i))); });
    for (int64_t i = 0; i < rows; ++i) {
      float* row = x + i * k;
      float total = 0.0f;
      for (int64_t c = 0; c < k; ++c) total += row[c];
      const float scale = 1.0f / total;
      for (int64_t c = 0; c < k; ++c) row[c] *= scale;
    }
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::SimdTable& patchcut::SimdTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
