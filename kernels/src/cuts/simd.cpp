#include "cuts/simd.h"

#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

static_assert(kRowGroup <= kMaxRows);

// Rows past the last repeat it; what comes of them is dropped.
template <int group>
struct RowPointers {
  const float* rows[group];

  RowPointers(int64_t count, const float* a, int64_t lda) {
    for (int r = 0; r < group; ++r) rows[r] = a + (r < count ? r : count - 1) * lda;
  }
};

// The sum of the lanes, in a tree: eight of these end every product of a row group.
float sum_lanes(Vec v) {
  typedef float Quad __attribute__((vector_size(4 * sizeof(float))));
  Quad quads[kLanes / 4];
  __builtin_memcpy(quads, &v, sizeof(v));
  for (int width = kLanes / 4; width > 1; width /= 2) {
    for (int q = 0; q < width / 2; ++q) quads[q] += quads[q + width / 2];
  }
  return (quads[0][0] + quads[0][2]) + (quads[0][1] + quads[0][3]);
}

// Zeros in the lanes before `first`.
Vec keep_from(Vec v, int first) {
  IntVec lanes;
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = lane;
  return lanes >= first ? v : Vec{};
}

// Calls step(i, keep) for each vector of [0, count), at least one vector long. The last one overlaps the one
// before it, and `keep` makes zeros of the lanes that both have: a short copy for the rest took as long as a
// row of 200.
template <class Step>
inline void for_each_overlapping(int64_t count, const Step& step) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) step(i, [](Vec v) { return v; });
  const int seen = static_cast<int>(i + kLanes - count);
  if (seen < kLanes) step(count - kLanes, [seen](Vec v) { return keep_from(v, seen); });
}

// Of one or two vectors: sums[v, r] += a[r] . x[v], y[v] += sum over r of scales[v, r] * a[r].
template <int group, int vectors>
void dot_add_group(int64_t rows, int64_t count, const float* a, int64_t lda, int64_t stride, const float* x,
                   const float* scales, float* sums, float* y) {
  constexpr int64_t kAhead = 64;  // floats; without it a matrix in DRAM is read a fifth slower
  const RowPointers<group> at(rows, a, lda);
  float scale[vectors][group] = {};
  for (int v = 0; v < vectors; ++v) {
    for (int r = 0; r < rows; ++r) scale[v][r] = scales[v * stride + r];
  }
  Vec total[vectors][group] = {};
  for_each_overlapping(count, [&](int64_t i, auto keep) {
    Vec other[vectors];
    Vec even[vectors] = {};
    Vec odd[vectors] = {};
    for (int v = 0; v < vectors; ++v) other[v] = keep(load(x + v * stride + i));
#pragma GCC unroll 16
    for (int r = 0; r < group; ++r) {
      __builtin_prefetch(at.rows[r] + i + kAhead);
      const Vec row = load(at.rows[r] + i);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        total[v][r] += row * other[v];
        (r % 2 == 0 ? even : odd)[v] += row * scale[v][r];
      }
    }
    for (int v = 0; v < vectors; ++v) {
      float* out = y + v * stride + i;
      store(out, load(out) + keep(even[v] + odd[v]));
    }
  });
  for (int v = 0; v < vectors; ++v) {
    for (int64_t r = 0; r < rows; ++r) sums[v * kMaxRows + r] += sum_lanes(total[v][r]);
  }
}

struct Table final : CutTable {
  constexpr Table() : CutTable(kRowGroup) {}

  void dot_rows(int64_t rows, int64_t count, const float* a, int64_t lda, const float* x,
                float* sums) const override {
    if (count < kLanes) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < count; ++i) sums[r] += a[r * lda + i] * x[i];
      }
      return;
    }
    const RowPointers<kRowGroup> at(rows, a, lda);
    Vec total[kRowGroup] = {};
    for_each_overlapping(count, [&](int64_t i, auto keep) {
      const Vec other = keep(load(x + i));
#pragma GCC unroll 16
      for (int r = 0; r < kRowGroup; ++r) total[r] += load(at.rows[r] + i) * other;
    });
    for (int64_t r = 0; r < rows; ++r) sums[r] += sum_lanes(total[r]);
  }

  void add_rows(int64_t rows, int64_t count, const float* a, int64_t lda, const float* scales,
                float* y) const override {
    if (count < kLanes) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < count; ++i) y[i] += scales[r] * a[r * lda + i];
      }
      return;
    }
    const RowPointers<kRowGroup> at(rows, a, lda);
    float scale[kRowGroup] = {};
    for (int r = 0; r < rows; ++r) scale[r] = scales[r];
    for_each_overlapping(count, [&](int64_t i, auto keep) {
      Vec even{};
      Vec odd{};
#pragma GCC unroll 16
      for (int r = 0; r < kRowGroup; r += 2) {
        even += load(at.rows[r] + i) * scale[r];
        odd += load(at.rows[r + 1] + i) * scale[r + 1];
      }
      store(y + i, load(y + i) + keep(even + odd));
    });
  }

  void dot_add_rows(int64_t rows, int64_t count, const float* a, int64_t lda, int64_t vectors, int64_t stride,
                    const float* x, const float* scales, float* sums, float* y) const override {
    constexpr int kHalf = kRowGroup / 2;
    int64_t v = 0;
    if (count >= kLanes) {
      for (; v + 2 <= vectors; v += 2) {
        for (int64_t r = 0; r < rows; r += kHalf) {
          dot_add_group<kHalf, 2>(rows - r < kHalf ? rows - r : kHalf, count, a + r * lda, lda, stride,
                                  x + v * stride, scales + v * stride + r, sums + v * kMaxRows + r,
                                  y + v * stride);
        }
      }
    }
    for (; v < vectors; ++v) {
      dot_add_one(rows, count, a, lda, x + v * stride, scales + v * stride, sums + v * kMaxRows,
                  y + v * stride);
    }
  }

 private:
  void dot_add_one(int64_t rows, int64_t count, const float* a, int64_t lda, const float* x,
                   const float* scales, float* sums, float* y) const {
    if (count < kLanes) {
      dot_rows(rows, count, a, lda, x, sums);
      return add_rows(rows, count, a, lda, scales, y);
    }
    dot_add_group<kRowGroup, 1>(rows, count, a, lda, 0, x, scales, sums, y);
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::CutTable& patchcut::CutTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
