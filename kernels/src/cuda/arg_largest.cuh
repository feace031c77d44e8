// The largest of many values and where it is: one number for both, so that Max() of such numbers finds the
// largest value and, of equals, the first index.
#pragma once

#include "cuda/launch.cuh"

namespace patchcut {

using IndexedValue = unsigned long long;

__device__ __forceinline__ IndexedValue indexed(unsigned ordered, int index) {
  return static_cast<IndexedValue>(ordered) << 32 | ~static_cast<unsigned>(index);
}

__device__ __forceinline__ IndexedValue indexed(int value, int index) {
  return indexed(static_cast<unsigned>(value) ^ 0x80000000u, index);
}

__device__ __forceinline__ IndexedValue indexed(float value, int index) {
  const unsigned bits = __float_as_uint(value + 0.0f);  // -0 equals 0
  return indexed(bits >> 31 != 0 ? ~bits : bits ^ 0x80000000u, index);
}

__device__ __forceinline__ int index_of(IndexedValue x) {
  return static_cast<int>(~static_cast<unsigned>(x));
}

__device__ __forceinline__ int int_of(IndexedValue x) {
  return static_cast<int>(static_cast<unsigned>(x >> 32) ^ 0x80000000u);
}

__device__ __forceinline__ float float_of(IndexedValue x) {
  const unsigned ordered = static_cast<unsigned>(x >> 32);
  return __uint_as_float(ordered >> 31 != 0 ? ordered ^ 0x80000000u : ~ordered);
}

}  // namespace patchcut
