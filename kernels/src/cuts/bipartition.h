#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// The first vector of ncut_cpu, cut at its mean; `connected` keeps only the part of the mask that is joined
// to the seed by edges of patches.
void bipartition_cpu(const float* features,  // [height * width, d]; of PATCHCUT_GRAPH_AFFINITY [n, n]
                     int64_t height, int64_t width, int64_t d,
                     const float* start,  // [n], or null: random
                     const patchcut_ncut_params& params, bool connected,
                     uint8_t* mask,   // [height, width], 1 on the side of the seed
                     int32_t* seed,   // [1], the entry of largest magnitude
                     float* vector);  // [n], or null

// Of a batch; arrays lie on the queue's device. `dtype` is a patchcut_dtype.
void bipartition_cuda(
    const void* features,  // [batch, height * width, d]; of PATCHCUT_GRAPH_AFFINITY [batch, n, n]
    int32_t dtype, int64_t batch, int64_t height, int64_t width, int64_t d,
    const float* start,  // [batch, n], or null
    const patchcut_ncut_params& params, bool connected,
    uint8_t* masks,  // [batch, height, width]
    int32_t* seeds,  // [batch]
    float* vectors,  // [batch, n], or null
    CudaQueue& queue);

}  // namespace patchcut
