#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

// Returns the number of components kept. ids may be label_map itself.
int64_t connected_components_cpu(const int32_t* label_map,  // [height, width], 0 = background
                                 int64_t height, int64_t width,
                                 bool diagonal,  // corners touch: 8-connectivity
                                 int64_t min_area,
                                 int32_t* ids,           // [height, width], 0 and 1..count in scan order
                                 int32_t* kept_labels);  // [height, width], label_map with 0 where ids is 0;
                                                         // may be label_map itself; or null

// Of a batch; arrays lie on the queue's device, see connected_components_cpu.
void connected_components_cuda(const int32_t* label_map, int64_t batch, int64_t height, int64_t width,
                               bool diagonal, int64_t min_area, int32_t* ids, int32_t* kept_labels,
                               int32_t* counts,  // [batch]
                               CudaQueue& queue);

}  // namespace patchcut
