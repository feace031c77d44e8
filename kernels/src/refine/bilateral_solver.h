#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

struct BilateralSolverParams {
  float sigma_spatial = 24.0f;  // size of a cell in pixels, at least 1
  float sigma_luma = 4.0f;      // of 256 levels, at least 1
  float sigma_chroma = 4.0f;    // of 256 levels, at least 1
  float smoothness = 256.0f;    // the paper's lambda, at least 0
  int64_t iterations = 25;      // of conjugate gradients
  int64_t bistochastic_iterations = 10;
  bool swap_channels = true;  // the frame is BGR
};

// Throws std::invalid_argument where the map or the confidence is not finite, or the latter below 0.
void bilateral_solver_cpu(const uint8_t* frame,     // [height, width, 3]
                          const float* soft_map,    // [height, width]
                          const float* confidence,  // [height, width]
                          int64_t height, int64_t width, const BilateralSolverParams& params,
                          float* out);  // [height, width], may be soft_map or confidence itself

// Of a batch, one item after the other; arrays lie on the queue's device, and values are not checked.
// Equal inputs give equal bits on a device.
void bilateral_solver_cuda(const uint8_t* frames,    // [batch, height, width, 3]
                           const float* soft_maps,   // [batch, height, width]
                           const float* confidence,  // [batch, height, width]
                           int64_t batch, int64_t height, int64_t width, const BilateralSolverParams& params,
                           float* out,  // [batch, height, width], may be soft_maps or confidence itself
                           CudaQueue& queue);

}  // namespace patchcut
