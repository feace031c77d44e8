#pragma once

#include <cstdint>

#include "cpu/simd.h"

namespace patchcut {

// out[d] = row / |row|, zeros for a zero row; right for every finite row, however large or small.
void normalize_row(const SimdTable& simd, int64_t d, const float* row, float* out);

}  // namespace patchcut
