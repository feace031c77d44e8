#include "refine/solver_simd.h"

#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

typedef float Quad __attribute__((vector_size(kQuad * sizeof(float))));
typedef int32_t QuadIndex __attribute__((vector_size(kQuad * sizeof(int32_t))));

inline Quad load_quad(const float* x) { return load_as<Quad>(x); }

inline double add_quad(Quad v) {
  return (static_cast<double>(v[0]) + static_cast<double>(v[1])) +
         (static_cast<double>(v[2]) + static_cast<double>(v[3]));
}

inline Vec square_root(Vec v) {
  for (int i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}

// {a0, b0, a1, b1} and so on.
inline Quad zip_low(Quad a, Quad b) { return __builtin_shuffle(a, b, QuadIndex{0, 4, 1, 5}); }
inline Quad zip_high(Quad a, Quad b) { return __builtin_shuffle(a, b, QuadIndex{2, 6, 3, 7}); }
inline Quad join_low(Quad a, Quad b) { return __builtin_shuffle(a, b, QuadIndex{0, 1, 4, 5}); }
inline Quad join_high(Quad a, Quad b) { return __builtin_shuffle(a, b, QuadIndex{2, 3, 6, 7}); }

// rows[i][j] becomes rows[j][i].
inline void transpose_quads(Quad* rows) {
  const Quad low[2] = {zip_low(rows[0], rows[1]), zip_low(rows[2], rows[3])};
  const Quad high[2] = {zip_high(rows[0], rows[1]), zip_high(rows[2], rows[3])};
  rows[0] = join_low(low[0], low[1]);
  rows[1] = join_high(low[0], low[1]);
  rows[2] = join_low(high[0], high[1]);
  rows[3] = join_high(high[0], high[1]);
}

template <int count>
struct Sides {};

// Calls visit(sides of a quad, its row) for quads with `sides` sides and more.
template <int sides, class Visit>
inline void visit_rows(const int32_t* counts, const int32_t* rows, const Visit& visit) {
  for (int32_t i = 0; i < counts[sides]; ++i, rows += 3 + sides) visit(Sides<sides>{}, rows);
  if constexpr (sides < kSides) visit_rows<sides + 1>(counts, rows + kSides, visit);
}

// The same for the quads of a block.
template <class Visit>
inline void visit_block(const QuadGraph& graph, int64_t block, const Visit& visit) {
  visit_rows<0>(graph.side_counts + block * (kSides + 1), graph.rows + block * kBlockRows, visit);
}

// Calls step(i, load, store) for each vector of a block's vertices.
template <class Step>
inline void visit_vectors(const QuadGraph& graph, int64_t block, const Step& step) {
  const int64_t first = block * kBlockQuads;
  const int64_t quads = graph.quads - first < kBlockQuads ? graph.quads - first : kBlockQuads;
  for_each_vector(quads * kQuad, [&](int64_t i, auto get, auto put) { step(first * kQuad + i, get, put); });
}

// Calls visit(i, values of the i-th neighbour of each vertex) for a quad: in luma, then in the other axes.
template <int sides, class Visit>
inline void visit_neighbours(Sides<sides>, const int32_t* row, const float* x, Quad own, const Visit& visit) {
  visit(0, __builtin_shuffle(load_quad(x + row[1]), own, QuadIndex{3, 4, 5, 6}));
  visit(1, __builtin_shuffle(own, load_quad(x + row[2]), QuadIndex{1, 2, 3, 4}));
#pragma GCC unroll 8
  for (int i = 0; i < sides; ++i) visit(2 + i, load_quad(x + row[3 + i]));
}

template <int count>
inline Quad sum_neighbours(Sides<count> sides, const int32_t* row, const float* x) {
  Quad sums[2] = {};
  visit_neighbours(sides, row, x, load_quad(x + row[0]), [&](int i, Quad near) { sums[i % 2] += near; });
  return sums[0] + sums[1];
}

// The operator's values at a quad, see SolverTable.
template <int count>
inline Quad apply_quad(Sides<count> sides, const int32_t* row, const float* scale, const float* weight,
                       const float* x) {
  const Quad own = load_quad(x + row[0]);
  const Quad own_scale = load_quad(scale + row[0]);
  Quad apart[2 + count];
  visit_neighbours(sides, row, x, own, [&](int i, Quad near) { apart[i] = own - near; });
  Quad sums[2] = {};
  visit_neighbours(sides, row, scale, own_scale, [&](int i, Quad near) { sums[i % 2] += near * apart[i]; });
  return own_scale * (sums[0] + sums[1]) + load_quad(weight + row[0]) * own;
}

// The bin of the middle of a level, which comes in 65536ths.
inline int32_t bin_of_level(float parts, float per_bin) {
  const int32_t level = static_cast<int32_t>(parts * 0x1p-16f);
  return static_cast<int32_t>((static_cast<float>(level) + 0.5f) * per_bin);
}

inline void add_pixel(float* sums, int32_t vertex, Quad pixel) {
  float* sum = sums + vertex * kSums;
  store(sum, load_quad(sum) + pixel);
}

struct Table final : SolverTable {
  // Weights are BT.601's in 65536ths: those of luma sum to 1 and those of chroma to 0, so that grey is grey,
  // and float32 holds all sums exactly.
  void color_keys(int64_t count, const int8_t* planes, int64_t stride, const ColorBins& bins,
                  int32_t* keys) const override {
    const int8_t* red = planes + (bins.swap_channels ? 2 * stride : 0);
    const int8_t* green = planes + stride;
    const int8_t* blue = planes + (bins.swap_channels ? 0 : 2 * stride);
    const ColorBins to = bins;
    // 128 of each is subtracted, and U and V are given as much.
    constexpr float kMiddle = 128.0f * 65536.0f;
    // A plain loop: compilers turn bytes into floats well there, and not in vector types.
    for (int64_t x = 0; x < count; ++x) {
      const float r = static_cast<float>(red[x]);
      const float g = static_cast<float>(green[x]);
      const float b = static_cast<float>(blue[x]);
      const int32_t luma = bin_of_level(kMiddle + r * 19595.0f + g * 38470.0f + b * 7471.0f, to.per_luma);
      const int32_t u = bin_of_level(kMiddle + b * 32768.0f - r * 11059.0f - g * 21709.0f, to.per_chroma);
      const int32_t v = bin_of_level(kMiddle + r * 32768.0f - g * 27439.0f - b * 5329.0f, to.per_chroma);
      keys[x] = luma + ((u + to.chroma_bins * v) << to.luma_bits);
    }
  }

  float splat(int64_t count, const int32_t* vertices, const float* confidence, const float* soft_map,
              float* sums) const override {
    Quad least{};
    int64_t i = 0;
    for (; i + kQuad <= count; i += kQuad) {
      const Quad weight = load_quad(confidence + i);
      least = weight < least ? weight : least;
      Quad pixels[4] = {Quad{} + 1.0f, weight, weight * load_quad(soft_map + i), Quad{}};
      transpose_quads(pixels);
      for (int j = 0; j < kQuad; ++j) add_pixel(sums, vertices[i + j], pixels[j]);
    }
    for (; i < count; ++i) {
      least[0] = confidence[i] < least[0] ? confidence[i] : least[0];
      add_pixel(sums, vertices[i], Quad{1.0f, confidence[i], confidence[i] * soft_map[i], 0.0f});
    }
    for (int j = 1; j < kQuad; ++j) least[0] = least[j] < least[0] ? least[j] : least[0];
    return least[0];
  }

  bool take_sums(int64_t first, int64_t vertices, const float* sums, const SolverVectors& v) const override {
    Quad zeros{};
    for (int64_t i = 0; i < vertices; i += kQuad) {
      Quad rows[4];
      for (int j = 0; j < 4; ++j) rows[j] = load_quad(sums + (i + j) * kSums);
      transpose_quads(rows);
      store(v.mass + first + i, rows[0]);
      store(v.weight + first + i, rows[1]);
      store(v.right + first + i, rows[2]);
      store(v.scale + first + i, rows[0] > 0.0f ? Quad{} + 1.0f : Quad{});
      // NaN of what is not finite.
      zeros += rows[1] * 0.0f + rows[2] * 0.0f;
    }
    return add_quad(zeros) == 0.0;
  }

  void balance(int64_t block, const QuadGraph& graph, const SolverVectors& v) const override {
    const float* __restrict scale = v.scale;
    float* __restrict next = v.next_scale;
    visit_block(graph, block, [&](auto sides, const int32_t* row) {
      store(next + row[0], 10.0f * load_quad(scale + row[0]) + sum_neighbours(sides, row, scale));
    });
    visit_vectors(graph, block, [&](int64_t i, auto get, auto put) {
      const Vec wanted = get(scale + i) * get(v.mass + i);
      const Vec blurred = get(next + i);
      const Vec square = wanted > 0.0f ? wanted / (blurred > 0.0f ? blurred : Vec{} + 1.0f) : Vec{};
      put(next + i, square_root(square));
    });
  }

  void set_up(int64_t block, const QuadGraph& graph, float smoothness,
              const SolverVectors& v) const override {
    const float root = __builtin_sqrtf(smoothness);
    visit_block(graph, block, [&](auto sides, const int32_t* row) {
      const int32_t at = row[0];
      const Quad scale = load_quad(v.scale + at);
      const Quad weight = load_quad(v.weight + at);
      const Quad diagonal = smoothness * scale * sum_neighbours(sides, row, v.scale) + weight;
      store(v.next_scale + at, scale * root);
      store(v.inverse + at, diagonal > 0.0f ? 1.0f / diagonal : Quad{});
      store(v.x + at, weight > 0.0f ? load_quad(v.right + at) / weight : Quad{});
    });
  }

  double residual(int64_t block, const QuadGraph& graph, const SolverVectors& v) const override {
    Quad total{};
    visit_block(graph, block, [&](auto sides, const int32_t* row) {
      const int32_t at = row[0];
      const Quad r = load_quad(v.right + at) - apply_quad(sides, row, v.next_scale, v.weight, v.x);
      const Quad p = r * load_quad(v.inverse + at);
      store(v.r + at, r);
      store(v.p + at, p);
      total += r * p;
    });
    return add_quad(total);
  }

  double apply(int64_t block, const QuadGraph& graph, const SolverVectors& v) const override {
    const float* __restrict scale = v.next_scale;
    const float* __restrict weight = v.weight;
    const float* __restrict p = v.p;
    float* __restrict q = v.q;
    Quad total{};
    visit_block(graph, block, [&](auto sides, const int32_t* row) {
      const Quad applied = apply_quad(sides, row, scale, weight, p);
      total += load_quad(p + row[0]) * applied;
      store(q + row[0], applied);
    });
    return add_quad(total);
  }

  double step(int64_t block, const QuadGraph& graph, float alpha, const SolverVectors& v) const override {
    Vec total{};
    visit_vectors(graph, block, [&](int64_t i, auto get, auto put) {
      const Vec r = get(v.r + i) - get(v.q + i) * alpha;
      put(v.r + i, r);
      total += r * r * get(v.inverse + i);
    });
    return static_cast<double>(add_lanes(total));
  }

  void turn(int64_t block, const QuadGraph& graph, float alpha, float beta,
            const SolverVectors& v) const override {
    visit_vectors(graph, block, [&](int64_t i, auto get, auto put) {
      const Vec p = get(v.p + i);
      put(v.x + i, get(v.x + i) + p * alpha);
      put(v.p + i, get(v.r + i) * get(v.inverse + i) + p * beta);
    });
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::SolverTable& patchcut::SolverTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
