#pragma once

#include <cstdint>

namespace patchcut {

// out = table[labels]. Throws std::invalid_argument for a label outside [0, count).
void relabel_cpu(const int32_t* labels,  // [height, width]
                 int64_t height, int64_t width,
                 const int32_t* table,  // [count]
                 int64_t count,
                 int32_t* out);  // [height, width], may be labels itself

}  // namespace patchcut
