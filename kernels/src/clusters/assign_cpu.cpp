#include <algorithm>
#include <atomic>

#include "clusters/assign.h"
#include "cpu/errors.h"
#include "cpu/feature_rows.h"
#include "cpu/gemm.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"

namespace patchcut {
namespace {

// Unit rows as panels of columns of their transpose.
void pack_prototypes(const SimdTable& simd, int64_t c, int64_t d, const float* prototypes, float* packed) {
  Scratch scratch;
  float* unit = scratch.take<float>(c * d);
  require_finite(simd.all_finite(c * d, prototypes), "assign", "prototypes");
  for (int64_t i = 0; i < c; ++i) normalize_row(simd, d, prototypes + i * d, unit + i * d);
  pack_rows(simd, d, c, unit, packed);
}

void choose(int64_t c, const float* cosines, int32_t* label, float* similarity) {
  const float* best = std::max_element(cosines, cosines + c);
  *label = static_cast<int32_t>(best - cosines);
  *similarity = std::clamp(*best, -1.0f, 1.0f);
}

}  // namespace

void assign_cpu(const float* features, int64_t n, int64_t d, const float* prototypes, int64_t c,
                float temperature, int32_t* labels, float* similarity, float* assignment) {
  const SimdTable& table = simd();
  Scratch scratch;
  float* packed = scratch.take<float>(packed_size(table, d, c));
  pack_prototypes(table, c, d, prototypes, packed);
  std::atomic<bool> finite{true};
  for_row_blocks(n, d * (1 + packed_size(table, 1, c) / 16), [&](int64_t first, int64_t rows) {
    Scratch block_scratch;
    float* unit = block_scratch.take<float>(rows * d);
    float* out = assignment == nullptr ? block_scratch.take<float>(rows * c) : assignment + first * c;
    if (!table.all_finite(rows * d, features + first * d)) {
      return finite.store(false, std::memory_order_relaxed);
    }
    for (int64_t i = 0; i < rows; ++i) normalize_row(table, d, features + (first + i) * d, unit + i * d);
    gemm_rows(table, rows, c, d, unit, d, packed, out, c);
    for (int64_t i = 0; i < rows; ++i) choose(c, out + i * c, labels + first + i, similarity + first + i);
    if (assignment != nullptr) table.softmax_rows(rows, c, 1.0f / temperature, out);
  });
  require_finite(finite, "assign", "features");
}

}  // namespace patchcut
