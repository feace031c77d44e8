#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

// Throws std::invalid_argument where the assignment is not finite.
void upsample_argmax_cpu(const float* assignment,  // [grid_height * grid_width, k]
                         int64_t grid_height, int64_t grid_width, int64_t k, int64_t height, int64_t width,
                         int32_t* labels,     // [height, width]
                         float* confidence);  // [height, width], or null

// Of a batch; arrays lie on the queue's device, see upsample_argmax_cpu.
void upsample_argmax_cuda(const float* assignment, int64_t batch, int64_t grid_height, int64_t grid_width,
                          int64_t k, int64_t height, int64_t width, int32_t* labels, float* confidence,
                          CudaQueue& queue);

}  // namespace patchcut
