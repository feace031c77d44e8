#pragma once

// Included only by the sources that are compiled once per instruction set. Everything here has internal
// linkage and no standard header with inline code is used: a shared inline function compiled for AVX-512
// could be the one copy that the linker keeps for every machine.

#include <cstdint>

namespace patchcut::PATCHCUT_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kPanelVectors = 2;
constexpr int kTileRows = 8;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kPanelVectors = 3;
constexpr int kTileRows = 4;
#elif defined(__aarch64__)
constexpr int kLanes = 4;
constexpr int kPanelVectors = 4;
constexpr int kTileRows = 4;
#else
constexpr int kLanes = 4;
constexpr int kPanelVectors = 3;
constexpr int kTileRows = 4;
#endif
constexpr int kPanel = kPanelVectors * kLanes;
// Rows whose sums with one vector stay in registers, or of half as many with two.
constexpr int kRowGroup = kLanes == 16 ? 16 : 8;

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(int32_t))));
typedef uint16_t HalfVec __attribute__((vector_size(kLanes * sizeof(uint16_t))));
typedef double DoubleVec __attribute__((vector_size(kLanes * sizeof(double))));

template <class AnyVec>
inline AnyVec load_as(const void* x) {
  AnyVec v;
  __builtin_memcpy(&v, x, sizeof(v));
  return v;
}

inline Vec load(const float* x) { return load_as<Vec>(x); }
inline HalfVec load(const uint16_t* x) { return load_as<HalfVec>(x); }
inline IntVec load(const int32_t* x) { return load_as<IntVec>(x); }

template <class Scalar, class AnyVec>
inline void store(Scalar* x, AnyVec v) {
  __builtin_memcpy(x, &v, sizeof(v));
}

inline Vec load_first(const float* x, int64_t count) {
  Vec v{};
  __builtin_memcpy(&v, x, static_cast<uint64_t>(count) * sizeof(float));
  return v;
}

inline HalfVec load_first(const uint16_t* x, int64_t count) {
  HalfVec v{};
  __builtin_memcpy(&v, x, static_cast<uint64_t>(count) * sizeof(uint16_t));
  return v;
}

template <class Scalar, class AnyVec>
inline void store_first(Scalar* x, AnyVec v, int64_t count) {
  __builtin_memcpy(x, &v, static_cast<uint64_t>(count) * sizeof(Scalar));
}

// Calls step(i, load, store) for each vector of [0, count), the last one partial.
template <class Step>
inline void for_each_vector(int64_t count, const Step& step) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    step(i, [](const auto* x) { return load(x); }, [](auto* x, auto v) { store(x, v); });
  }
  const int64_t rest = count - i;
  if (rest == 0) return;
  step(
      i, [rest](const auto* x) { return load_first(x, rest); },
      [rest](auto* x, auto v) { store_first(x, v, rest); });
}

inline float add_lanes(Vec v) {
  float total = 0.0f;
  for (int lane = 0; lane < kLanes; ++lane) total += v[lane];
  return total;
}

template <int... lane>
struct Lanes {};
// AllLanes<3>::Type is Lanes<0, 1, 2>.
template <int count, int... lane>
struct AllLanes : AllLanes<count - 1, count - 1, lane...> {};
template <int... lane>
struct AllLanes<0, lane...> {
  using Type = Lanes<lane...>;
};

// Lanes of a, and of b from kLanes on.
template <int... from>
inline Vec shuffle(Vec a, Vec b, Lanes<from...>) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, from...);
#else
  return __builtin_shuffle(a, b, IntVec{from...});  // GCC before 12
#endif
}

// operation over all lanes, by halves: it does not matter to it which comes first.
template <int size = kLanes / 2, class Operation, int... lane>
inline Vec across(Vec v, const Operation& operation, Lanes<lane...> lanes) {
  v = operation(v, shuffle(v, v, Lanes<(lane ^ size)...>{}));
  if constexpr (size > 1) return across<size / 2>(v, operation, lanes);
  return v;
}

inline float largest_lane(Vec v) {
  return across(v, [](Vec a, Vec b) { return a > b ? a : b; }, AllLanes<kLanes>::Type{})[0];
}

// Whether a lane of a comparison holds.
inline bool any(IntVec mask) {
  uint64_t words[kLanes / 2];
  __builtin_memcpy(words, &mask, sizeof(mask));
  uint64_t all = 0;
  for (uint64_t word : words) all |= word;
  return all != 0;
}

inline int32_t add_lanes(IntVec v) {
  const auto add = [](Vec a, Vec b) {
    return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(a) + reinterpret_cast<IntVec>(b));
  };
  return reinterpret_cast<IntVec>(across(reinterpret_cast<Vec>(v), add, AllLanes<kLanes>::Type{}))[0];
}

// Swaps the odd groups of `size` lanes of a with the even ones of b.
template <int size, int... lane>
inline void swap_groups(Vec& a, Vec& b, Lanes<lane...>) {
  const Vec even = shuffle(a, b, Lanes<((lane & size) == 0 ? lane : lane - size + kLanes)...>{});
  b = shuffle(a, b, Lanes<((lane & size) == 0 ? lane + size : lane + kLanes)...>{});
  a = even;
}

// block[i][j] becomes block[j][i], by halves, quarters and so on.
template <int size = kLanes / 2>
inline void transpose(Vec* block) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & size) == 0) swap_groups<size>(block[i], block[i + size], AllLanes<kLanes>::Type{});
  }
  if constexpr (size > 1) transpose<size / 2>(block);
}

// Within 2 ulp on [-87, 88]; below it underflows to about 1e-38, which is enough for elu and softmax.
inline Vec exp_vector(Vec x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = x < -87.0f ? Vec{} - 87.0f : x;
  x = x > 88.0f ? Vec{} + 88.0f : x;
  const Vec shifted = x * 1.44269504f + kRound;
  const Vec n = shifted - kRound;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const IntVec exponent = __builtin_convertvector(n, IntVec) << 23;
  return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(p) + exponent);
}

// NaN and infinities of either sign come out as NaN or infinity, so that a check of the last layer sees them:
// x * 0 - 1 is -1 for finite x. A sum that overflowed to -inf may have been on its way to any value.
inline Vec elu(Vec x) { return x < 0.0f ? exp_vector(x < 0.0f ? x : Vec{}) + (x * 0.0f - 1.0f) : x; }

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA
