#pragma once

#include <cstdint>

namespace patchcut {

// How far x.c - |c|^2 / 2, of products and sums in float, lies from what it is: of d terms d units in the
// last place and a few for the rest (Higham 2002, section 3.1), and what floats do not tell from 0.
struct ScoreError {
  double share;  // of |x||c| + |c|^2 / 2; infinite where d is too large for any bound
  double least;

  explicit ScoreError(int64_t d) {
    const double units = static_cast<double>(d + 8) * 0x1p-24;
    share = units < 1.0 ? units / (1.0 - units) : 1.0 / 0.0;
    least = static_cast<double>(d + 8) * 0x1p-149;
  }
};

// Where |x||c| or |c|^2 / 2 is not below this, products may overflow, and say nothing.
constexpr float kLargestScore = 1e37f;

// What squares that underflow leave out of the sum of d of them.
inline float lost_squares(int64_t d) { return static_cast<float>(d) * 0x1p-125f; }

}  // namespace patchcut
