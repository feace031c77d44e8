#pragma once

#include <algorithm>
#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// Partitions of n nodes that a search starts from. Small graphs are quick, and may have many local optima. On
// features 16 came within 1e-4 of the best known on every image, 8 on 99 of 100, one on 70.
inline int64_t start_count(int64_t n) { return std::clamp<int64_t>(4096 / n, 16, 64); }

// A search ends after this many chains and merges, and 16 more for each node, whether or not it could go on.
constexpr int64_t kMostSearchRounds = 1024;

// The best of several local optima of the weights within clusters, added up over pairs of nodes. The weight
// of a pair is the mean of its two entries; the diagonal has no meaning. Throws std::invalid_argument where
// entries are not finite, or what is added up of them leaves float32.
void correlation_cluster_cpu(const float* affinity,  // [n, n]
                             int64_t n, const patchcut_correlation_cluster_params& params,
                             int32_t* labels,    // [n], numbered by their first nodes
                             int32_t* count,     // [1], clusters found
                             float* objective);  // [1]

// Of a batch; arrays lie on the queue's device. `dtype` is a patchcut_dtype. Where an entry is not finite the
// objective is NaN.
void correlation_cluster_cuda(const void* affinity,  // [batch, n, n]
                              int32_t dtype, int64_t batch, int64_t n,
                              const patchcut_correlation_cluster_params& params,
                              int32_t* labels,    // [batch, n]
                              int32_t* counts,    // [batch]
                              float* objectives,  // [batch]
                              CudaQueue& queue);

}  // namespace patchcut
