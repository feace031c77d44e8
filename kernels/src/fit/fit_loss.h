#pragma once

#include <cstdint>

namespace patchcut {

// What each block of rows adds to the terms of a loss. They are added up in order, whoever made them.
struct LossSums {
  int64_t blocks;
  float* gram;    // [blocks, k, k], S^T S; NCut only
  float* volume;  // [blocks], tr(S^T D S); NCut only
  float* inside;  // [blocks], tr(S^T W S)
};

// The loss's gradient by row i of S: near_weight (W S)_i + degree_weight D_i S_i + S_i mix.
struct LossSlope {
  float near_weight;
  float degree_weight;
  float* mix;  // [k, k]; NCut only
};

// The loss, a patchcut_affinity_mode, and its slope; slope.mix is the caller's.
double measure_loss(int32_t loss, const LossSums& sums, int64_t k, LossSlope& slope);

}  // namespace patchcut
