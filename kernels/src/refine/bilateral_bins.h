#pragma once

#include <cmath>
#include <cstdint>

#include "cpu/host_device.h"

namespace patchcut {

// The bin of the middle of pixel or level i; float32 on every device, so that all agree on borders.
PATCHCUT_HOST_DEVICE inline int64_t bin_of(int64_t i, float per_bin) {
  return static_cast<int64_t>(floorf((static_cast<float>(i) + 0.5f) * per_bin));
}

}  // namespace patchcut
