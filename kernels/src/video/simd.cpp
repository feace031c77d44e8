#include "video/simd.h"

#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

constexpr int kLaneColumns = kLanes == 4 ? 2 : 4;
constexpr int kLaneRows = kLanes / kLaneColumns;
constexpr float kHighest = 3.402823466e38f;
// Keys that are compared at once: few of them are among the nearest.
constexpr int64_t kLookedAt = 4;

// Puts one cosine, in those lanes that `take` it, where it belongs among those of a vector of queries. An
// equal one before it stays before it.
inline void insert(const Nearest& nearest, int64_t query, Vec cosine, IntVec take, int32_t place) {
  IntVec moved{};
  IntVec places = IntVec{} + place;
  for (int64_t j = 0; j < nearest.topk; ++j) {
    float* cosines_of_rank = nearest.cosines + j * kPanel + query;
    int32_t* places_of_rank = nearest.places + j * kPanel + query;
    const Vec old = load(cosines_of_rank);
    const IntVec old_places = load(places_of_rank);
    moved |= take & (cosine > old);
    store(cosines_of_rank, moved ? cosine : old);
    store(places_of_rank, moved ? places : old_places);
    cosine = moved ? old : cosine;
    places = moved ? old_places : places;
  }
}

struct Table final : VideoTable {
  constexpr Table() : VideoTable(kLaneRows, kLaneColumns) {}

  void keep_nearest(const KeyRun& run, const Nearest& nearest) const override {
    const float* least = nearest.cosines + (nearest.topk - 1) * kPanel;
    for (int64_t query = run.first; query < run.last; query += kLanes) {
      const IntVec down = run.row - load(run.query_rows + query);
      const IntVec rows = (down <= run.radius) & (down >= -run.radius);
      const IntVec columns = load(run.query_columns + query);
      const float* products = run.products + query;
      Vec threshold = load(least + query);
      for (int64_t begin = 0; begin < run.count; begin += kLookedAt) {
        const int64_t end = begin + kLookedAt < run.count ? begin + kLookedAt : run.count;
        IntVec above{};
        for (int64_t i = begin; i < end; ++i)
          above |= load(products + i * kPanel) * run.scales[i] > threshold;
        if (!any(above)) continue;
        for (int64_t i = begin; i < end; ++i) {
          const Vec cosine = load(products + i * kPanel) * run.scales[i];
          const IntVec right = run.column + static_cast<int32_t>(i) - columns;
          const IntVec near = rows & (right <= run.radius) & (right >= -run.radius);
          if (!any((cosine > threshold) & near)) continue;
          insert(nearest, query, cosine, near, run.place + static_cast<int32_t>(i));
          threshold = load(least + query);
        }
      }
    }
  }

  void soften(const Nearest& nearest, float sharpness) const override {
    for (int64_t query = 0; query < kPanel; query += kLanes) {
      const Vec largest = load(nearest.cosines + query);
      Vec total{};
      for (int64_t j = 0; j < nearest.topk; ++j) {
        float* cosines = nearest.cosines + j * kPanel + query;
        const Vec share = exp_vector((load(cosines) - largest) * sharpness);
        const Vec weight = load(nearest.places + j * kPanel + query) < 0 ? Vec{} : share;
        total += weight;
        store(cosines, weight);
      }
      for (int64_t j = 0; j < nearest.topk; ++j) {
        float* cosines = nearest.cosines + j * kPanel + query;
        store(cosines, load(cosines) / total);
      }
    }
  }

  void blend(const Nearest& nearest, int64_t query, int64_t c, const float* values,
             float* out) const override {
    const Vec highest = Vec{} + kHighest;
    for_each_vector(c, [&](int64_t i, auto get, auto put) {
      Vec total{};
      for (int64_t j = 0; j < nearest.topk; ++j) {
        const int64_t place = nearest.places[j * kPanel + query];
        if (place < 0) break;
        total += get(values + place * c + i) * nearest.cosines[j * kPanel + query];
      }
      // Shares that are rounded may sum to more than 1.
      total = total > highest ? highest : total;
      put(out + i, total < -highest ? -highest : total);
    });
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::VideoTable& patchcut::VideoTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
