#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// Throws std::invalid_argument "[op] ..." where graphs of data [batch, n, d] cannot be cut so.
void check_cut(const char* op, const patchcut_ncut_params* params, int64_t batch, int64_t n, int64_t d,
               int64_t k);

// The k smallest eigenvalues of (D - W) x = lambda D x, D the row sums of W, without the constant vector's 0.
// Throws std::invalid_argument where the data are not finite or a row sum is negative.
void ncut_cpu(
    const char* op,         // that errors name
    const float* features,  // [n, d]; of PATCHCUT_GRAPH_AFFINITY [n, n], symmetric: half of it is read
    int64_t n, int64_t d, int64_t k,
    const float* start,  // [n, k], or null: random
    const patchcut_ncut_params& params,
    float* eigenvalues,  // [k], ascending
    float* vectors,      // [n, k], x' D x = 1, the entry of largest magnitude is positive
    float* residuals,    // [k], |D^-1/2 ((D - W) x - lambda D x)|
    int32_t* products);  // [1], with a block of vectors; or null

// Of a batch; arrays lie on the queue's device. `dtype` is a patchcut_dtype. All of W is read; a node whose
// sum is negative has no edges. Throws std::invalid_argument for more vectors times iterations than 2048.
void ncut_cuda(const void* features,  // [batch, n, d]; of PATCHCUT_GRAPH_AFFINITY [batch, n, n]
               int32_t dtype, int64_t batch, int64_t n, int64_t d, int64_t k,
               const float* start,  // [batch, n, k], or null
               const patchcut_ncut_params& params,
               float* eigenvalues,  // [batch, k]
               float* vectors,      // [batch, n, k]
               float* residuals,    // [batch, k]
               int32_t* products,   // [batch], or null
               CudaQueue& queue);

}  // namespace patchcut
