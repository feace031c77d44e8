#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// Patches of k images, one image after the other.
struct ImagePatches {
  int64_t n;  // of all images
  int64_t d;
  int64_t k;
  const int64_t* offsets;  // [k + 1], where each image's patches start; null where all have n / k
};

// Throws std::invalid_argument where features are not finite, weights not 0 to 1, or offsets not ascending
// from 0 to n. `dtype` is a patchcut_dtype.
void cosegment_cpu(const void* features,  // [n, d]
                   int32_t dtype, const ImagePatches& patches,
                   const float* weights,  // [n], or null for ones
                   float* scores,         // [n]
                   int32_t* seeds,        // [k]
                   float* embedding);     // [d]

// Arrays lie on the queue's device.
void cosegment_cuda(const void* features,  // [n, d]
                    int32_t dtype, const ImagePatches& patches,
                    const float* weights,  // [n], or null
                    float* scores,         // [n]
                    int32_t* seeds,        // [k]
                    float* embedding,      // [d]
                    CudaQueue& queue);

}  // namespace patchcut
