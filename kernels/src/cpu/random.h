// Random numbers by counter: number `index` of a stream depends on (seed, stream, index) and on nothing else,
// so that every thread, instruction set and GPU gets the same. `reference.uniform` is the same in numpy.

#pragma once

#include <cstdint>

#include "cpu/host_device.h"

namespace patchcut {
namespace {  // internal linkage, as in simd_vector.h: sources compiled once per instruction set include this

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection that flips half of the bits.
PATCHCUT_HOST_DEVICE inline uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

// SplitMix64 from a state that is hashed from the seed and the stream; any number of it at once.
class RandomStream {
 public:
  PATCHCUT_HOST_DEVICE RandomStream(uint64_t seed, uint64_t stream)
      : state_(mix_bits(mix_bits(seed + kStep) + stream)) {}

  PATCHCUT_HOST_DEVICE uint64_t bits(uint64_t index) const { return mix_bits(state_ + (index + 1) * kStep); }

  // A multiple of 2^-24 in [0, 1).
  PATCHCUT_HOST_DEVICE float uniform(uint64_t index) const {
    return static_cast<float>(bits(index) >> 40) * 0x1p-24f;
  }

 private:
  static constexpr uint64_t kStep = UINT64_C(0x9e3779b97f4a7c15);

  uint64_t state_;
};

}  // namespace
}  // namespace patchcut
