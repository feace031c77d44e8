#pragma once

#include <cstdint>
#include <cstring>

namespace patchcut {

// First position after `x` whose value differs from that at `x`.
inline int64_t run_end(const int32_t* row, int64_t x, int64_t width) {
  const int32_t value = row[x];
  uint64_t pair;
  const int32_t values[2] = {value, value};
  uint64_t expected;
  std::memcpy(&expected, values, sizeof(expected));
  ++x;
  // Four pixels a step: most runs are long.
  for (; x + 4 <= width; x += 4) {
    uint64_t next;
    std::memcpy(&pair, row + x, sizeof(pair));
    std::memcpy(&next, row + x + 2, sizeof(next));
    if (((pair ^ expected) | (next ^ expected)) != 0) break;
  }
  while (x < width && row[x] == value) ++x;
  return x;
}

}  // namespace patchcut
