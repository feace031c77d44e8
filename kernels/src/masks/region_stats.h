#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

// Arrays of `count` regions; the last two may be null.
struct RegionArrays {
  int64_t* area;
  float* boxes_xyxy;  // [count, 4], half-open
  float* mean_confidence;
  int32_t* label;
};

// Throws std::invalid_argument for an id outside [0, count].
void region_stats_cpu(const int32_t* ids,        // [height, width], 0 = no region
                      const int32_t* label_map,  // [height, width]; null where regions.label is
                      const float* confidence,   // [height, width]; null where regions.mean_confidence is
                      int64_t height, int64_t width, int64_t count, const RegionArrays& regions);

// Of a batch; arrays lie on the queue's device, see region_stats_cpu. Pixels of other ids are left out; a
// mean of what is not finite is NaN. Equal inputs give equal bits on a device.
void region_stats_cuda(const int32_t* ids, const int32_t* label_map, const float* confidence, int64_t batch,
                       int64_t height, int64_t width, int64_t count, const RegionArrays& regions,
                       CudaQueue& queue);

}  // namespace patchcut
