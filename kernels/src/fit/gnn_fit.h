#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// Fits a fresh network to one graph; gives what its last pass says, the one that losses[steps - 1] is of.
// Throws std::invalid_argument where features or affinity are not finite, where it has negative entries with
// NCut, or where a loss overflows.
void gnn_fit_cpu(const float* features,  // [n, d]
                 const float* affinity,  // [n, n], symmetric
                 int64_t n, int64_t d, int64_t k, const patchcut_gnn_fit_params& params,
                 const patchcut_gnn_fit_weights* weights,  // or null: drawn from the seed
                 float* assignment,                        // [n, k]
                 float* losses,                            // [steps]
                 float* fitted);                           // [fit_parameters()], or null

// Of a batch; arrays and weights lie on the queue's device. `dtype`, `affinity_dtype` are patchcut_dtype.
void gnn_fit_cuda(const void* features,  // [batch, n, d]
                  int32_t dtype,
                  const void* affinity,  // [batch, n, n], symmetric
                  int32_t affinity_dtype, int64_t batch, int64_t n, int64_t d, int64_t k,
                  const patchcut_gnn_fit_params& params,
                  const patchcut_gnn_fit_weights* weights,  // or null: drawn from the seed
                  float* assignment,                        // [batch, n, k]
                  float* losses,                            // [batch, steps]
                  float* fitted,                            // [batch, fit_parameters()], or null
                  CudaQueue& queue);

}  // namespace patchcut
