#pragma once

#include <cstdint>

#include "cuts/ncut.h"

namespace patchcut {

struct BipartitionParams {
  NCutParams cut;         // k = 1
  bool connected = true;  // keep only the part of the mask that is joined to the seed by edges of patches
};

// The first vector of ncut_cpu, cut at its mean.
void bipartition_cpu(const float* features,  // [height * width, d]; of kAffinity [n, n]
                     int64_t height, int64_t width, int64_t d, const BipartitionParams& params,
                     uint8_t* mask,   // [height, width], 1 on the side of the seed
                     int32_t* seed);  // [1], the entry of largest magnitude

// Of a batch; arrays lie on the queue's device. `dtype` is a patchcut_dtype.
void bipartition_cuda(const void* features,  // [batch, height * width, d]; of kAffinity [batch, n, n]
                      int32_t dtype, int64_t batch, int64_t height, int64_t width, int64_t d,
                      const BipartitionParams& params,
                      uint8_t* masks,  // [batch, height, width]
                      int32_t* seeds,  // [batch]
                      CudaQueue& queue);

}  // namespace patchcut
