#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// Throws std::invalid_argument where arrays are not finite, or squared distances overflow.
void kmeans_cpu(const float* points,  // [n, d]
                int64_t n, int64_t d, int64_t k, const patchcut_kmeans_params& params,
                const float* init,  // [k, d], or null: greedy k-means++
                int32_t* labels,    // [n]
                float* centroids,   // [k, d]
                float* inertia);    // [1], all points' distances to their centroids, added up

// Of a batch; arrays lie on the queue's device. `dtype` is a patchcut_dtype.
void kmeans_cuda(const void* points,  // [batch, n, d]
                 int32_t dtype, int64_t batch, int64_t n, int64_t d, int64_t k,
                 const patchcut_kmeans_params& params,
                 const float* init,  // [batch, k, d], or null
                 int32_t* labels,    // [batch, n]
                 float* centroids,   // [batch, k, d]
                 float* inertia,     // [batch]
                 CudaQueue& queue);

}  // namespace patchcut
