#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// Throws std::invalid_argument where arrays are not finite, or distances overflow. `dtype` is a
// patchcut_dtype.
void kmeans_sums_cpu(const void* points,  // [n, d]
                     int32_t dtype, int64_t n, int64_t d,
                     const float* centroids,  // [k, d]
                     int64_t k, const patchcut_kmeans_sums_params& params,
                     int32_t* labels,   // [n], the nearest centroid, the first on a tie
                     float* distances,  // [n], to it
                     double* sums,      // [k, d], of the points of each centroid, or null
                     int64_t* counts,   // [k]
                     double* inertia);  // [1], the distances, added up

// Arrays lie on the queue's device.
void kmeans_sums_cuda(const void* points,  // [n, d]
                      int32_t dtype, int64_t n, int64_t d,
                      const float* centroids,  // [k, d]
                      int64_t k, const patchcut_kmeans_sums_params& params,
                      int32_t* labels,   // [n]
                      float* distances,  // [n]
                      double* sums,      // [k, d], or null
                      int64_t* counts,   // [k]
                      double* inertia,   // [1]
                      CudaQueue& queue);

}  // namespace patchcut
