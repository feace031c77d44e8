#pragma once

#include <cstdint>

#include "cpu/host_device.h"

namespace patchcut {

// Weights of a box: 1 up to `inner` away from its centre, `edge` at `reach`, which is one further.
struct GuidedWindow {
  int64_t inner;
  int64_t reach;
  float edge;
  float scale;  // 1 / the sum of its weights over both axes
};

// Of what is left of a frame with one of `step` pixels. Its width is that of the full window to the fraction:
// whole pixels would be up to 20 % off.
inline GuidedWindow make_guided_window(int64_t radius, int64_t step) {
  const double full = static_cast<double>(2 * radius + 1) / static_cast<double>(step);
  const double width = full > 1.0 ? full : 1.0;
  const int64_t inner = static_cast<int64_t>((width - 1) / 2);
  const double edge = (width - static_cast<double>(2 * inner + 1)) / 2;
  return {inner, inner + 1, static_cast<float>(edge), static_cast<float>(1 / (width * width))};
}

// The index that stands for one outside [0, size) as OpenCV's BORDER_REFLECT has it: borders come twice.
PATCHCUT_HOST_DEVICE inline int64_t reflect_index(int64_t i, int64_t size) {
  if (i >= 0 && i < size) return i;
  const int64_t period = 2 * size;
  i = (i % period + period) % period;
  return i < size ? i : period - 1 - i;
}

}  // namespace patchcut
