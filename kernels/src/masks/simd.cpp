#include "masks/simd.h"

#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

struct Table final : MaskTable {
  void argmax_span(int64_t count, const float* fraction, int64_t classes, const float* base,
                   const float* slope, const int32_t* names, int32_t* labels,
                   float* confidence) const override {
    for (int64_t x = 0; x < count; x += kLanes) {
      const Vec f = load(fraction + x);
      Vec best = f * slope[0] + base[0];
      IntVec label = IntVec{} + names[0];
      for (int64_t c = 1; c < classes; ++c) {
        const Vec value = f * slope[c] + base[c];
        const auto wins = value > best;
        best = wins ? value : best;
        label = wins ? IntVec{} + names[c] : label;
      }
      store(labels + x, label);
      if (confidence != nullptr) store(confidence + x, best);
    }
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::MaskTable& patchcut::MaskTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
