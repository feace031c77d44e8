#include "clusters/simd.h"

#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

// Rows of one pass, so that their sums, a vector of the panel and a difference fit the registers.
constexpr int kRows = kLanes == 16 ? 8 : 4;

// As many as fill a vector of doubles of the width of Vec.
typedef float HalfFloats __attribute__((vector_size(kLanes / 2 * sizeof(float))));
typedef double HalfDoubles __attribute__((vector_size(kLanes / 2 * sizeof(double))));

// out[rows, kPanel] = squared distances of rows of a to the columns of a packed panel.
template <int rows>
void tile_distances(int64_t depth, const float* a, const float* packed, float* out) {
  Vec total[rows][kPanelVectors] = {};
  for (int64_t p = 0; p < depth; ++p, packed += kPanel) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; ++v) {
        const Vec difference = load(packed + v * kLanes) - a[i * depth + p];
        total[i][v] += difference * difference;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; ++v) store(out + i * kPanel + v * kLanes, total[i][v]);
  }
}

typedef int16_t ShortVec __attribute__((vector_size(kLanes * sizeof(int16_t))));

inline Vec load_products(const int32_t* products) { return __builtin_convertvector(load(products), Vec); }

struct Table final : ClusterTable {
  void squared_distances(int64_t m, int64_t depth, const float* a, const float* packed,
                         float* out) const override {
    int64_t i = 0;
    for (; i + kRows <= m; i += kRows) tile_distances<kRows>(depth, a + i * depth, packed, out + i * kPanel);
    if (i + kRows / 2 <= m) {
      tile_distances<kRows / 2>(depth, a + i * depth, packed, out + i * kPanel);
      i += kRows / 2;
    }
    for (; i < m; ++i) tile_distances<1>(depth, a + i * depth, packed, out + i * kPanel);
  }

  double squared_distance(int64_t count, const float* x, const float* y) const override {
    HalfDoubles total[4] = {};
    const auto add = [&](int64_t i, HalfDoubles& sum) {
      const HalfFloats difference = load_as<HalfFloats>(x + i) - load_as<HalfFloats>(y + i);
      const HalfDoubles wide = __builtin_convertvector(difference, HalfDoubles);
      sum += wide * wide;
    };
    constexpr int64_t kHalf = kLanes / 2;
    int64_t i = 0;
    for (; i + 4 * kHalf <= count; i += 4 * kHalf) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) add(i + v * kHalf, total[v]);
    }
    for (; i + kHalf <= count; i += kHalf) add(i, total[0]);
    double sum = 0.0;
    for (; i < count; ++i) {
      const double difference = x[i] - y[i];
      sum += difference * difference;
    }
    total[0] = (total[0] + total[1]) + (total[2] + total[3]);
    for (int64_t lane = 0; lane < kHalf; ++lane) sum += total[0][lane];
    return sum;
  }

  int64_t near_largest(int64_t count, const float* products, const ScoreBounds& bounds, float length,
                       int32_t* rows) const override {
    Vec largest = Vec{} - __builtin_inff();
    IntVec lanes;
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = lane;
    for (int64_t i = 0; i < count; i += kLanes) {
      const Vec low = load(products + i) - (load(bounds.low + i) + load(bounds.slope + i) * length);
      largest = low > largest ? low : largest;
    }
    const float least = largest_lane(largest);
    // Mostly there is one, which the sum of all is then.
    IntVec near{}, sum{};
    for (int64_t i = 0; i < count; i += kLanes, lanes += kLanes) {
      const Vec high = load(products + i) - (load(bounds.high + i) - load(bounds.slope + i) * length);
      const IntVec below = high < least;
      near += ~below;
      sum += ~below & lanes;
    }
    if (add_lanes(near) == -1) {
      rows[0] = add_lanes(sum);
      return 1;
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float high = products[i] - (bounds.high[i] - bounds.slope[i] * length);
      if (!(high < least)) rows[kept++] = static_cast<int32_t>(i);
    }
    return kept;
  }

  void lower_minima(int64_t m, int32_t first, const float* values, float* minima,
                    int32_t* rows) const override {
    for (int v = 0; v < kPanelVectors; ++v) {
      Vec least = load(minima + v * kLanes);
      IntVec row = load(rows + v * kLanes);
      for (int64_t i = 0; i < m; ++i) {
        const Vec value = load(values + i * kPanel + v * kLanes);
        row = value < least ? IntVec{} + (first + static_cast<int32_t>(i)) : row;
        least = value < least ? value : least;
      }
      store(minima + v * kLanes, least);
      store(rows + v * kLanes, row);
    }
  }

  float lower_row(int64_t count, const float* x, float* lowest) const override {
    Vec total{};
    for_each_vector(count, [&](int64_t i, auto get, auto put) {
      const Vec a = get(x + i);
      const Vec b = get(lowest + i);
      const Vec least = a < b ? a : b;
      put(lowest + i, least);
      total += least;
    });
    return add_lanes(total);
  }

  void move_row(int64_t count, const float* x, double* from, double* to) const override {
    for (int64_t i = 0; i < count; ++i) to[i] += x[i];
    if (from == nullptr) return;
    for (int64_t i = 0; i < count; ++i) from[i] -= x[i];
  }

  void average_rows(int64_t count, const float* x, const float* y, float* out) const override {
    // Not the sum of two halves: of those a fused multiply-add rounds only one, and the result of subnormal
    // numbers would depend on which of the two comes first.
    for_each_vector(count,
                    [&](int64_t i, auto get, auto put) { put(out + i, (get(x + i) + get(y + i)) * 0.5f); });
  }

  double sum_absolute(int64_t count, const float* x) const override {
    DoubleVec total[2] = {};
    for_each_vector(count, [&](int64_t i, auto get, auto) {
      const Vec v = get(x + i);
      const DoubleVec wide = __builtin_convertvector(v < 0.0f ? -v : v, DoubleVec);
      total[i / kLanes % 2] += wide;
    });
    double sum = 0.0;
    for (int lane = 0; lane < kLanes; ++lane) sum += total[0][lane] + total[1][lane];
    return sum;
  }

  void round_row(int64_t count, const float* x, double scale, int32_t* out) const override {
    constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
    for_each_vector(count, [&](int64_t i, auto get, auto put) {
      const DoubleVec scaled = __builtin_convertvector(get(x + i), DoubleVec) * scale;
      const IntVec rounded = __builtin_convertvector(scaled + kRound - kRound, IntVec);
      put(out + i, rounded);
    });
  }

  void move_weights(int64_t count, const int32_t* weights, int32_t* from, int32_t* to) const override {
    for (int64_t i = 0; i < count; i += kLanes) {
      const IntVec w = load(weights + i);
      store(to + i, load(to + i) + w);
      if (from != nullptr) store(from + i, load(from + i) - w);
    }
  }

  NodeMove best_move(const PartitionView& partition) const override {
    constexpr int32_t kNone = -(1 << 30);  // below every sum, and still a number after one is subtracted
    IntVec nodes;
    for (int lane = 0; lane < kLanes; ++lane) nodes[lane] = lane;
    IntVec best_gain = IntVec{} + kNone, best_node = IntVec{} - 1, best_target = IntVec{} - 1;
    for (int64_t i = 0; i < partition.nodes; i += kLanes, nodes += kLanes) {
      const IntVec label = load(partition.labels + i);
      IntVec own{}, alone{}, target = IntVec{} - 1, sum = IntVec{} + kNone;
      for (int64_t c = 0; c < partition.clusters; ++c) {
        const int32_t number = partition.numbers[c];
        const IntVec common = load(partition.sums + number * partition.nodes + i);
        const IntVec inside = label == number;
        own = inside ? common : own;
        if (partition.sizes[number] == 1) alone |= inside;
        const IntVec better = ~inside & (common > sum);
        sum = better ? common : sum;
        target = better ? IntVec{} + number : target;
      }
      if (partition.vacant >= 0) {
        const IntVec opens = (sum <= 0) & ~alone;
        sum = opens ? IntVec{} : sum;
        target = opens ? IntVec{} + partition.vacant : target;
      }
      const IntVec can_move = load(partition.free + i) & (sum > kNone);
      const IntVec gain = sum - own;
      const IntVec better = can_move & ((best_node < 0) | (gain > best_gain));
      best_gain = better ? gain : best_gain;
      best_node = better ? nodes : best_node;
      best_target = better ? target : best_target;
    }
    NodeMove best{-1, -1, kNone};
    for (int lane = 0; lane < kLanes; ++lane) {
      if (best_node[lane] < 0) continue;
      const bool later = best_gain[lane] == best.gain && best_node[lane] > best.node;
      if (best.node >= 0 && (best_gain[lane] < best.gain || later)) continue;
      best = {best_node[lane], best_target[lane], best_gain[lane]};
    }
    return best;
  }

  float quantize_row(int64_t count, const float* x, float scale, int16_t* out) const override {
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const float step = 1.0f / scale;
    Vec squares{};
    for_each_vector(count, [&](int64_t i, auto get, auto put) {
      const Vec value = get(x + i);
      const Vec rounded = (value * scale + kRound) - kRound;
      const Vec error = value - rounded * step;
      squares += error * error;
      put(out + i, __builtin_convertvector(rounded, ShortVec));
    });
    return add_lanes(squares);
  }

  float raise_maxima(const ProductRow& row, float* column_maxima) const override {
    Vec largest = Vec{} - __builtin_inff();
    for (int64_t j = 0; j < row.columns; j += kLanes) {
      const Vec products = load_products(row.products + j);
      const Vec of_row = products * load(row.weights + j);
      const Vec of_column = products * row.weight;
      const Vec before = load(column_maxima + j);
      largest = of_row > largest ? of_row : largest;
      store(column_maxima + j, of_column > before ? of_column : before);
    }
    return largest_lane(largest);
  }

  int64_t near_maxima(const ProductRow& row, float threshold, const float* thresholds,
                      int32_t* found) const override {
    int64_t count = 0;
    for (int64_t j = 0; j < row.columns; j += kLanes) {
      const Vec products = load_products(row.products + j);
      const IntVec near =
          (products * load(row.weights + j) >= threshold) | (products * row.weight >= load(thresholds + j));
      if (!any(near)) continue;
      for (int lane = 0; lane < kLanes; ++lane) {
        if (near[lane] != 0) found[count++] = static_cast<int32_t>(j) + lane;
      }
    }
    return count;
  }

  float dot(int64_t count, const float* x, const float* y) const override {
    Vec total[4] = {};
    int64_t i = 0;
    for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) total[v] += load(x + i + v * kLanes) * load(y + i + v * kLanes);
    }
    const float* rest = y + i;
    for_each_vector(count - i,
                    [&](int64_t j, auto get, auto) { total[0] += get(x + i + j) * get(rest + j); });
    return add_lanes((total[0] + total[1]) + (total[2] + total[3]));
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::ClusterTable& patchcut::ClusterTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
