#include "nodes/simd.h"

#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

// out[rows, columns] = the first rows and columns of block[kLanes, kLanes].
inline void store_block(const Vec* block, int64_t rows, int64_t columns, float* out, int64_t stride) {
  if (rows >= kLanes && columns >= kLanes) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) store(out + i * stride, block[i]);
    return;
  }
  if (columns <= 0) return;
  const int64_t count = columns < kLanes ? columns : kLanes;
  for (int64_t i = 0; i < rows && i < kLanes; ++i) store_first(out + i * stride, block[i], count);
}

struct Table final : NodeTable {
  float finish_affinity_tile(const AffinityTile& tile) const override {
    const Vec zero{};
    const Vec limit = zero + tile.limit;
    const Vec threshold = zero + tile.threshold;
    Vec largest{};
    Vec columns[kPanelVectors] = {};
    for (int64_t i = 0; i < kPanel; i += kLanes) {
      Vec rows{};
      for (int64_t v = 0; v < kPanelVectors; ++v) {
        const int64_t j = v * kLanes;
        Vec block[kLanes];
#pragma GCC unroll 16
        for (int64_t l = 0; l < kLanes; ++l) {
          Vec x = load(tile.products + (i + l) * kPanel + j);
          x = x > limit ? limit : x;
          x = x < -limit ? -limit : x;
          if (tile.sparse) x = x > threshold ? x : zero;
          columns[v] += x;
          largest = x > largest ? x : largest;
          block[l] = x;
        }
        store_block(block, tile.rows - i, tile.columns - j, tile.out + i * tile.stride + j, tile.stride);
        transpose(block);
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; ++l) rows += block[l];
        if (tile.mirror == nullptr) continue;
        store_block(block, tile.columns - j, kLanes, tile.mirror + j * tile.stride + i, tile.stride);
      }
      store(tile.row_sums + i, rows);
    }
    for (int v = 0; v < kPanelVectors; ++v) store(tile.column_sums + v * kLanes, columns[v]);
    float maximum = largest[0];
    for (int lane = 1; lane < kLanes; ++lane) maximum = largest[lane] > maximum ? largest[lane] : maximum;
    return maximum;
  }

  void offset_row(int64_t count, const float* x, float offset, float* out) const override {
    for_each_vector(count, [&](int64_t i, auto get, auto put) { put(out + i, get(x + i) + offset); });
  }

  void standardize_row(int64_t count, const float* x, const float* shift, const float* scale,
                       float* out) const override {
    for_each_vector(count, [&](int64_t i, auto get, auto put) {
      put(out + i, (get(x + i) - get(shift + i)) * get(scale + i));
    });
  }

  void gcn_row(int64_t count, const float* x, const float* self, float scale, const float* root,
               const float* bias, float* out) const override {
    for_each_vector(count, [&](int64_t i, auto get, auto put) {
      Vec h = (get(x + i) + get(self + i)) * scale + get(bias + i);
      if (root != nullptr) h += get(root + i);
      put(out + i, elu(h));
    });
  }

  void bias_row(int64_t count, const float* bias, bool with_elu, float* x) const override {
    for_each_vector(count, [&](int64_t i, auto get, auto put) {
      const Vec h = get(x + i) + get(bias + i);
      put(x + i, with_elu ? elu(h) : h);
    });
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::NodeTable& patchcut::NodeTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
