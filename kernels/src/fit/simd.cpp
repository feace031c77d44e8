#include "fit/simd.h"

#include "cpu/random.h"
#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

// Rows of b that one pass over a takes: their sums, and those of kDotRows rows of a, stay in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kDotColumns = 4;
#else
constexpr int kDotColumns = 2;
#endif
constexpr int kDotRows = 4;

template <int columns>
void dot_rows(int64_t rows, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
              int64_t ldc) {
  for (int64_t first = 0; first < rows; first += kDotRows) {
    const float* a_rows[kDotRows];
    for (int i = 0; i < kDotRows; ++i) a_rows[i] = a + (first + i < rows ? first + i : rows - 1) * lda;
    Vec total[kDotRows][columns] = {};
    for_each_vector(k, [&](int64_t p, auto get, auto) {
      Vec column[columns];
#pragma GCC unroll 4
      for (int j = 0; j < columns; ++j) column[j] = get(b + j * ldb + p);
#pragma GCC unroll 4
      for (int i = 0; i < kDotRows; ++i) {
        const Vec row = get(a_rows[i] + p);
#pragma GCC unroll 4
        for (int j = 0; j < columns; ++j) total[i][j] += row * column[j];
      }
    });
    for (int i = 0; i < kDotRows && first + i < rows; ++i) {
      for (int j = 0; j < columns; ++j) c[(first + i) * ldc + j] = add_lanes(total[i][j]);
    }
  }
}

struct Table final : FitTable {
  void multiply_by_rows(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                        int64_t ldb, float* c, int64_t ldc) const override {
    int64_t j = 0;
    for (; j + kDotColumns <= n; j += kDotColumns) {
      dot_rows<kDotColumns>(m, k, a, lda, b + j * ldb, ldb, c + j, ldc);
    }
    if (n - j >= 2) {
      dot_rows<2>(m, k, a, lda, b + j * ldb, ldb, c + j, ldc);
      j += 2;
    }
    if (n - j == 1) dot_rows<1>(m, k, a, lda, b + j * ldb, ldb, c + j, ldc);
  }

  float keep_positive(int64_t count, const float* x, float* out) const override {
    Vec least{};
    for_each_vector(count, [&](int64_t i, auto get, auto put) {
      const Vec v = get(x + i);
      least = v < least ? v : least;
      put(out + i, v > 0.0f ? v : Vec{});
    });
    float smallest = least[0];
    for (int lane = 1; lane < kLanes; ++lane) smallest = least[lane] < smallest ? least[lane] : smallest;
    return smallest;
  }

  void elu_row(int64_t count, float* x) const override {
    for_each_vector(count, [&](int64_t i, auto get, auto put) { put(x + i, elu(get(x + i))); });
  }

  void elu_slope_row(int64_t count, const float* y, float* gradient) const override {
    for_each_vector(count, [&](int64_t i, auto get, auto put) {
      const Vec v = get(y + i);
      put(gradient + i, get(gradient + i) * (v > 0.0f ? Vec{} + 1.0f : v + 1.0f));
    });
  }

  void dropout_row(int64_t count, uint64_t seed, uint64_t stream, uint64_t first, float dropout,
                   float* kept) const override {
    const RandomStream random(seed, stream);
    const float scale = 1.0f / (1.0f - dropout);
    for (int64_t i = 0; i < count; ++i) {
      kept[i] = random.uniform(first + static_cast<uint64_t>(i)) >= dropout ? scale : 0.0f;
    }
  }

  void adamw_row(int64_t count, const AdamWStep& step, const float* gradient, float* mean, float* square,
                 float* values) const override {
    constexpr float kEpsilon = 1e-8f;
    for (int64_t i = 0; i < count; ++i) {
      const float g = gradient[i];
      mean[i] = 0.9f * mean[i] + 0.1f * g;
      square[i] = 0.999f * square[i] + 0.001f * g * g;
      const float root = __builtin_sqrtf(square[i]) * step.root_scale + kEpsilon;
      values[i] = values[i] * step.decay - step.step_size * mean[i] / root;
    }
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::FitTable& patchcut::FitTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
