// Stands in for CUDA's header of the same name: half as storage.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half h) {
  const uint32_t sign = uint32_t{h.bits & 0x8000u} << 16;
  const int exponent = h.bits >> 10 & 31;
  const uint32_t fraction = h.bits & 0x3ffu;
  if (exponent == 31) {
    const uint32_t bits = sign | 0x7f800000u | fraction << 13;
    float special;
    std::memcpy(&special, &bits, sizeof(special));
    return special;
  }
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                   : std::ldexp(static_cast<float>(fraction | 0x400u), exponent - 25);
  return sign != 0 ? -size : size;
}

inline __half __float2half(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const float size = std::fabs(x);
  if (std::isnan(x)) return {static_cast<uint16_t>(sign | 0x7fffu)};
  if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00u)};
  int exponent;
  std::frexp(size, &exponent);
  exponent = size == 0.0f || exponent < -13 ? -13 : exponent;  // below, halves are evenly spaced
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, 11 - exponent)));
  // A carry of the rounding goes into the exponent by itself.
  return {static_cast<uint16_t>(sign | (((exponent + 13) << 10) + steps))};
}

inline __half __float2half_rn(float x) { return __float2half(x); }
