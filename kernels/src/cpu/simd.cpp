#include "cpu/simd_functions.h"
#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

// Four accumulators hide the latency of an addition.
template <class Term>
float accumulate(int64_t count, const float* x, const Term& term) {
  Vec total[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int v = 0; v < 4; ++v) total[v] += term(load(x + i + v * kLanes));
  }
  for_each_vector(count - i, [&](int64_t j, auto get, auto) { total[0] += term(get(x + i + j)); });
  return add_lanes((total[0] + total[1]) + (total[2] + total[3]));
}

constexpr int32_t kRebias = (127 - 15) << 23;  // of the exponent, from half to float
constexpr int32_t kHalfInfinity = 0x477ff000;  // bits of 65520, from where halves are infinite

// Subnormal halves are normal floats; the largest exponent stands for infinities and NaN in both.
inline Vec widen(HalfVec halves) {
  const IntVec bits = __builtin_convertvector(halves, IntVec);
  const IntVec magnitude = bits & 0x7fff;
  const IntVec subnormal = reinterpret_cast<IntVec>(__builtin_convertvector(magnitude, Vec) * 0x1p-24f);
  IntVec wide = (magnitude << 13) + kRebias;
  wide = magnitude >= 0x7c00 ? wide + kRebias : wide;
  wide = magnitude < 0x0400 ? subnormal : wide;
  return reinterpret_cast<Vec>(wide | (bits & 0x8000) << 16);
}

inline IntVec magnitude_bits(Vec x) { return reinterpret_cast<IntVec>(x) & 0x7fffffff; }

// To the nearest, ties to even. Adding 0.5 rounds at 2^-24, the step of
// subnormal halves.
inline HalfVec narrow(Vec x) {
  const IntVec magnitude = magnitude_bits(x);
  const IntVec subnormal = reinterpret_cast<IntVec>(reinterpret_cast<Vec>(magnitude) + 0.5f) - 0x3f000000;
  const IntVec rebiased = magnitude - kRebias;
  IntVec half = (rebiased + 0x0fff + ((rebiased >> 13) & 1)) >> 13;
  half = magnitude < 0x38800000 ? subnormal : half;
  half = magnitude >= kHalfInfinity ? IntVec{} + 0x7c00 : half;
  half = magnitude > 0x7f800000 ? IntVec{} + 0x7e00 : half;
  return __builtin_convertvector(half | ((reinterpret_cast<IntVec>(x) >> 16) & 0x8000), HalfVec);
}

}  // namespace

bool all_finite(int64_t count, const float* x) {
  // 0 * x is 0 for finite x and NaN otherwise.
  return accumulate(count, x, [](Vec v) { return v * 0.0f; }) == 0.0f;
}

void half_to_float(int64_t count, const uint16_t* halves, float* out) {
  for_each_vector(count, [&](int64_t i, auto get, auto put) { put(out + i, widen(get(halves + i))); });
}

bool float_to_half(int64_t count, const float* x, uint16_t* halves) {
  IntVec largest{};
  for_each_vector(count, [&](int64_t i, auto get, auto put) {
    const Vec v = get(x + i);
    const IntVec magnitude = magnitude_bits(v);
    largest = magnitude > largest ? magnitude : largest;
    put(halves + i, narrow(v));
  });
  for (int lane = 0; lane < kLanes; ++lane) {
    if (largest[lane] >= kHalfInfinity) return false;
  }
  return true;
}

float sum(int64_t count, const float* x) {
  return accumulate(count, x, [](Vec v) { return v; });
}

float sum_squares(int64_t count, const float* x) {
  return accumulate(count, x, [](Vec v) { return v * v; });
}

void scale_row(int64_t count, const float* x, float scale, float* out) {
  for_each_vector(count, [&](int64_t i, auto get, auto put) { put(out + i, get(x + i) * scale); });
}

void offset_row(int64_t count, const float* x, float offset, float* out) {
  for_each_vector(count, [&](int64_t i, auto get, auto put) { put(out + i, get(x + i) + offset); });
}

void standardize_row(int64_t count, const float* x, const float* shift, const float* scale, float* out) {
  for_each_vector(count, [&](int64_t i, auto get, auto put) {
    put(out + i, (get(x + i) - get(shift + i)) * get(scale + i));
  });
}

void gcn_row(int64_t count, const float* x, const float* self, float scale, const float* root,
             const float* bias, float* out) {
  for_each_vector(count, [&](int64_t i, auto get, auto put) {
    Vec h = (get(x + i) + get(self + i)) * scale + get(bias + i);
    if (root != nullptr) h += get(root + i);
    put(out + i, elu(h));
  });
}

void bias_row(int64_t count, const float* bias, bool with_elu, float* x) {
  for_each_vector(count, [&](int64_t i, auto get, auto put) {
    const Vec h = get(x + i) + get(bias + i);
    put(x + i, with_elu ? elu(h) : h);
  });
}

void softmax_rows(int64_t rows, int64_t k, float sharpness, float* x) {
  for (int64_t i = 0; i < rows; ++i) {
    float* row = x + i * k;
    float largest = row[0];
    for (int64_t c = 1; c < k; ++c) largest = row[c] > largest ? row[c] : largest;
    for (int64_t c = 0; c < k; ++c) row[c] = (row[c] - largest) * sharpness;
  }
  // k is small, so the exponentials run over all rows at once.
  for_each_vector(rows * k, [&](int64_t i, auto get, auto put) { put(x + i, exp_vector(get(x + i))); });
  for (int64_t i = 0; i < rows; ++i) {
    float* row = x + i * k;
    float total = 0.0f;
    for (int64_t c = 0; c < k; ++c) total += row[c];
    const float scale = 1.0f / total;
    for (int64_t c = 0; c < k; ++c) row[c] *= scale;
  }
}

}  // namespace patchcut::PATCHCUT_ISA
