// Colours of NV12 frames, in integers, so that the CPU and CUDA read the same bytes.

#pragma once

#include <cstdint>

#include "cpu/host_device.h"

namespace patchcut {
namespace {  // internal linkage: every source has a copy of its own

struct Rgb {
  uint8_t values[3];
};

PATCHCUT_HOST_DEVICE inline uint8_t to_byte(int32_t fixed) {
  const int32_t value = fixed >> 20;
  return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// BT.601 of limited range: luma 16 to 235, chroma 16 to 240, with 20 bits after the point. The factors are
// 1.164, 1.596, 0.813, 0.391 and 2.018, rounded to nearest.
PATCHCUT_HOST_DEVICE inline Rgb nv12_pixel(uint8_t luma, const uint8_t* chroma) {
  constexpr int32_t kHalf = 1 << 19;
  const int32_t y = 1220542 * (luma < 16 ? 0 : luma - 16) + kHalf;
  const int32_t u = chroma[0] - 128;
  const int32_t v = chroma[1] - 128;
  return {{to_byte(y + 1673527 * v), to_byte(y - 852492 * v - 409993 * u), to_byte(y + 2116026 * u)}};
}

}  // namespace
}  // namespace patchcut
