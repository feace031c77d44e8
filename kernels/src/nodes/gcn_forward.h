#pragma once

#include <cstdint>
#include <memory>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// A copy of weights laid out for one instruction set; may be used by several threads at once.
struct PackedGcn;

// For the instruction set in use.
std::shared_ptr<const PackedGcn> pack_gcn(const patchcut_gcn_weights& weights);

// On the instruction set that the weights are packed for.
// Throws std::invalid_argument where features are not finite or a row sum of the affinity is not above -1.
void gcn_forward_cpu(const float* features,  // [n, d]
                     const float* affinity,  // [n, n], or null where there are no GCN layers
                     const float* degrees,   // [n], row sums of affinity, or null
                     int64_t n, int64_t d, const PackedGcn& weights,
                     float* assignment);  // [n, k]

// A copy of weights in device memory.
struct CudaGcn;

// On the queue's device; waits until it is there.
std::shared_ptr<const CudaGcn> upload_gcn(const patchcut_gcn_weights& weights, CudaQueue& queue);

// Of a batch; arrays lie on the queue's device. `dtype`, `affinity_dtype` are patchcut_dtype. Where a row sum
// of the affinity is not above -1, rows of the assignment are NaN.
void gcn_forward_cuda(const void* features,  // [batch, n, d]
                      int32_t dtype,
                      const void* affinity,  // [batch, n, n], or null where there are no GCN layers
                      int32_t affinity_dtype,
                      const float* degrees,  // [batch, n], row sums of affinity, or null
                      int64_t batch, int64_t n, int64_t d, const CudaGcn& weights,
                      float* assignment,  // [batch, n, k]
                      CudaQueue& queue);

}  // namespace patchcut
