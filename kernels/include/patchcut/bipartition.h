#pragma once

#include <cstdint>

#include "patchcut/ncut.h"

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

}  // namespace patchcut
