#include "images/simd.h"

#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

typedef float Pixel __attribute__((vector_size(4 * sizeof(float))));

constexpr int kBlendBlock = 64;

// A fixed size lets the compiler keep `total` in registers.
inline void blend_block(int64_t taps, const uint8_t* const* rows, const float* weights, int64_t at,
                        float* out) {
  float total[kBlendBlock] = {};
  for (int64_t t = 0; t < taps; ++t) {
    const uint8_t* row = rows[t] + at;
    const float weight = weights[t];
    for (int i = 0; i < kBlendBlock; ++i) total[i] += weight * static_cast<float>(row[i]);
  }
  __builtin_memcpy(out + at, total, sizeof(total));
}

struct Table final : ImageTable {
  void blend_bytes(int64_t count, int64_t taps, const uint8_t* const* rows, const float* weights,
                   float* out) const override {
    int64_t i = 0;
    for (; i + kBlendBlock <= count; i += kBlendBlock) blend_block(taps, rows, weights, i, out);
    for (; i < count; ++i) {
      float total = 0.0f;
      for (int64_t t = 0; t < taps; ++t) total += weights[t] * static_cast<float>(rows[t][i]);
      out[i] = total;
    }
  }

  void resize_row(int64_t width, const float* row, const int32_t* starts, const int32_t* counts,
                  const float* weights, int64_t weight_stride, const float* scale, const float* offset,
                  float* const* planes) const override {
    // The three channels of a pixel and one lane to spare share a vector.
    const Pixel scales = {scale[0], scale[1], scale[2], 0.0f};
    const Pixel offsets = {offset[0], offset[1], offset[2], 0.0f};
    for (int64_t x = 0; x < width; ++x) {
      const float* pixel = row + 3 * starts[x];
      const float* weight = weights + x * weight_stride;
      Pixel total{};
      for (int32_t t = 0; t < counts[x]; ++t) total += weight[t] * load_as<Pixel>(pixel + 3 * t);
      total = total * scales + offsets;
      for (int c = 0; c < 3; ++c) planes[c][x] = total[c];
    }
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::ImageTable& patchcut::ImageTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
