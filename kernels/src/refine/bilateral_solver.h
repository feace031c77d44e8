#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// Throws std::invalid_argument where the map or the confidence is not finite, or the latter below 0.
void bilateral_solver_cpu(const uint8_t* frame,     // [height, width, 3]
                          const float* soft_map,    // [height, width]
                          const float* confidence,  // [height, width]
                          int64_t height, int64_t width, const patchcut_bilateral_solver_params& params,
                          float* out);  // [height, width], may be soft_map or confidence itself

// Of a batch, one item after the other; arrays lie on the queue's device, and values are not checked.
// Equal inputs give equal bits on a device.
void bilateral_solver_cuda(const uint8_t* frames,    // [batch, height, width, 3]
                           const float* soft_maps,   // [batch, height, width]
                           const float* confidence,  // [batch, height, width]
                           int64_t batch, int64_t height, int64_t width,
                           const patchcut_bilateral_solver_params& params,
                           float* out,  // [batch, height, width], may be soft_maps or confidence itself
                           CudaQueue& queue);

}  // namespace patchcut
