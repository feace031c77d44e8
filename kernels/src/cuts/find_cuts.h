#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

// Throws std::invalid_argument "[op] ..." where graphs of data [batch, n, d] cannot be cut so.
void check_cut(const char* op, const patchcut_ncut_params* params, int64_t batch, int64_t n, int64_t d,
               int64_t k);

// ncut_cpu, with the name of the op that calls it in its errors.
void find_cuts(const char* op, const float* features, int64_t n, int64_t d, int64_t k,
               const patchcut_ncut_params& params, float* eigenvalues, float* vectors, float* residuals);

}  // namespace patchcut
