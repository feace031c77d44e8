#pragma once

#include <cstdint>

namespace patchcut {

struct CorrelationClusterParams {
  int64_t max_clusters = 64;  // time and memory grow with it
  uint64_t seed = 0;
};

// The best of several local optima of the weights within clusters, added up over pairs of nodes. The weight
// of a pair is the mean of its two entries; the diagonal has no meaning. Throws std::invalid_argument where
// entries are not finite.
void correlation_cluster_cpu(const float* affinity,  // [n, n]
                             int64_t n, const CorrelationClusterParams& params,
                             int32_t* labels,    // [n], numbered by their first nodes
                             int32_t* count,     // [1], clusters found
                             float* objective);  // [1]

}  // namespace patchcut
