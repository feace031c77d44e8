#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

// Cosines of features to prototypes; a zero row has cosine 0. Throws std::invalid_argument where either is
// not finite.
void assign_cpu(const float* features,  // [n, d]
                int64_t n, int64_t d,
                const float* prototypes,  // [c, d]
                int64_t c,
                float temperature,   // above 0; no meaning without assignment
                int32_t* labels,     // [n], the largest cosine, the first on a tie
                float* similarity,   // [n], that cosine
                float* assignment);  // [n, c], softmax(cosine / temperature), or null

// Of a batch; arrays lie on the queue's device. `dtype` is a patchcut_dtype.
void assign_cuda(const void* features,  // [batch, n, d]
                 int32_t dtype, int64_t batch, int64_t n, int64_t d,
                 const float* prototypes,  // [c, d]
                 int64_t c, float temperature,
                 int32_t* labels,    // [batch, n]
                 float* similarity,  // [batch, n]
                 float* assignment,  // [batch, n, c], or null
                 CudaQueue& queue);

}  // namespace patchcut
