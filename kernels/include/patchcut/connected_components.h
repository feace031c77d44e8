#pragma once

#include <cstdint>

namespace patchcut {

// Returns the number of components kept. ids may be label_map itself.
int64_t connected_components_cpu(const int32_t* label_map,  // [height, width], 0 = background
                                 int64_t height, int64_t width,
                                 bool diagonal,  // corners touch: 8-connectivity
                                 int64_t min_area,
                                 int32_t* ids,           // [height, width], 0 and 1..count in scan order
                                 int32_t* kept_labels);  // [height, width], label_map with 0 where ids is 0;
                                                         // may be label_map itself; or null

}  // namespace patchcut
