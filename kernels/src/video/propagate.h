#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

// Where the patches lie: n = height * width, and how many of a memory's slots hold a frame.
struct MemoryShape {
  int64_t slots;
  int64_t frames;  // the first ones of the slots; at least 1
  int64_t height;
  int64_t width;
  int64_t d;
  int64_t c;

  int64_t nodes() const { return height * width; }
};

// Throws std::invalid_argument where features, or frames of the memory or values, are not finite.
void propagate_cpu(const float* features,  // [n, d]
                   const float* memory,    // [slots, n, d]
                   const float* values,    // [slots, n, c]
                   const MemoryShape& shape, const patchcut_propagate_params& params,
                   float* out);  // [n, c]

// Of a batch; arrays lie on the queue's device. `dtype`, `memory_dtype` are patchcut_dtype.
void propagate_cuda(const void* features,  // [batch, n, d]
                    int32_t dtype,
                    const void* memory,  // [batch, slots, n, d]
                    int32_t memory_dtype,
                    const float* values,  // [batch, slots, n, c]
                    int64_t batch, const MemoryShape& shape, const patchcut_propagate_params& params,
                    float* out,  // [batch, n, c]
                    CudaQueue& queue);

}  // namespace patchcut
