#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

// out = table[labels]. Throws std::invalid_argument for a label outside [0, count).
void relabel_cpu(const int32_t* labels,  // [height, width]
                 int64_t height, int64_t width,
                 const int32_t* table,  // [count]
                 int64_t count,
                 int32_t* out);  // [height, width], may be labels itself

// The same on the queue's device; a label outside [0, count) becomes 0.
void relabel_cuda(const int32_t* labels,  // [size]
                  int64_t size,
                  const int32_t* table,  // [count]
                  int64_t count,
                  int32_t* out,  // [size], may be labels itself
                  CudaQueue& queue);

}  // namespace patchcut
