#pragma once

#include <cstdint>

namespace patchcut {

// out[n, d] = Ahat features, rows `ldo` apart; Ahat = D^-1/2 A D^-1/2 with A the affinity's positive part, 1
// for a node that has no edge to itself, and D = rowsum(A). degrees[n] = the positive part's row sums. Throws
// std::invalid_argument where features or affinity are not finite; returns the least of the affinity and 0.
float propagate_features(const float* features,  // [n, d]
                         const float* affinity,  // [n, n], symmetric
                         int64_t n, int64_t d, float* out, int64_t ldo, float* degrees);

}  // namespace patchcut
