// Sums of floats by integer atomics: the same bits in whatever order the terms come.
#pragma once

#include "cuda/launch.cuh"

namespace patchcut {

using FixedSum = unsigned long long;  // of FixedUnit::count, in two's complement

// |x| as an integer of the same order, for atomicMax.
__device__ __forceinline__ unsigned magnitude_of(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// What terms are counted in: so little that their sum just fits, so that no float32 sum of them is as close.
struct FixedUnit {
  double per_one;  // a power of 2; 0 where a term is not finite

  // Of up to `terms` terms of which none has a larger magnitude_of than `peak`.
  __device__ __forceinline__ FixedUnit(unsigned peak, int64_t terms) {
    const int exponent = static_cast<int>(peak >> 23) - 126;  // terms are below 2^exponent
    const int bits = 64 - __clzll(terms);                     // and fewer than 2^bits
    const int64_t biased = 1023 + 62 - exponent - bits;
    per_one = peak < 0x7f800000u ? __longlong_as_double(biased << 52) : 0.0;
  }

  __device__ __forceinline__ FixedSum count(float term) const {
    return per_one > 0.0 ? static_cast<FixedSum>(llrint(static_cast<double>(term) * per_one)) : 0;
  }

  // NaN where a term was not finite.
  __device__ __forceinline__ double value(FixedSum sum) const {
    const double units = static_cast<double>(static_cast<long long>(sum));
    return per_one > 0.0 ? units / per_one : __longlong_as_double(int64_t{0x7ff8} << 48);
  }
};

}  // namespace patchcut
