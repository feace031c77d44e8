#include "cpu/feature_rows.h"

#include <algorithm>
#include <cmath>

namespace patchcut {
namespace {

// Rows whose squares leave the range of float are first brought near 1 by a power of two.
float safe_scale(int64_t d, const float* row) {
  float largest = 0.0f;
  for (int64_t i = 0; i < d; ++i) largest = std::max(largest, std::fabs(row[i]));
  return largest == 0.0f ? 0.0f : std::ldexp(1.0f, std::min(126, -std::ilogb(largest)));
}

}  // namespace

void normalize_row(const SimdTable& simd, int64_t d, const float* row, float* out) {
  const float squares = simd.sum_squares(d, row);
  if (squares > 1e-30f && squares < 1e30f) return simd.scale_row(d, row, 1.0f / std::sqrt(squares), out);
  simd.scale_row(d, row, safe_scale(d, row), out);
  const float safe_squares = simd.sum_squares(d, out);
  if (safe_squares > 0.0f) simd.scale_row(d, out, 1.0f / std::sqrt(safe_squares), out);
}

}  // namespace patchcut
