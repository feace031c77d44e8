#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// Throws std::invalid_argument where features are not finite or the result overflows.
void affinity_cpu(const float* features,  // [n, d]
                  int64_t n, int64_t d, const patchcut_affinity_params& params,
                  float* affinity,  // [n, n]
                  float* degrees);  // [n], or null

// Of a batch; arrays lie on the queue's device. `dtype`, `affinity_dtype` are patchcut_dtype.
void affinity_cuda(const void* features,  // [batch, n, d]
                   int32_t dtype, int64_t batch, int64_t n, int64_t d, const patchcut_affinity_params& params,
                   void* affinity,  // [batch, n, n]
                   int32_t affinity_dtype,
                   float* degrees,  // [batch, n], or null
                   CudaQueue& queue);

}  // namespace patchcut
