#include "simd_solver.h"

#include "simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

typedef float Quad __attribute__((vector_size(kQuad * sizeof(float))));
typedef int32_t QuadIndex __attribute__((vector_size(kQuad * sizeof(int32_t))));

inline Quad load_quad(const float* x) {
  Quad v;
  __builtin_memcpy(&v, x, sizeof(v));
  return v;
}

inline void store_quad(float* x, Quad v) { __builtin_memcpy(x, &v, sizeof(v)); }

inline double add_quad(Quad v) {
  return (static_cast<double>(v[0]) + static_cast<double>(v[1])) +
         (static_cast<double>(v[2]) + static_cast<double>(v[3]));
}

inline Quad square_root(Quad v) {
  for (int i = 0; i < kQuad; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}

// Calls visit(i, values of the i-th neighbour of each vertex) for a quad: in luma, then in the other axes.
template <class Visit>
inline void visit_neighbours(const int32_t* at, const float* x, Quad own, const Visit& visit) {
  visit(0, __builtin_shuffle(load_quad(x + at[0]), own, QuadIndex{3, 4, 5, 6}));
  visit(1, __builtin_shuffle(own, load_quad(x + at[1]), QuadIndex{1, 2, 3, 4}));
  for (int i = 2; i < kNeighbours; ++i) visit(i, load_quad(x + at[i]));
}

inline Quad sum_neighbours(const int32_t* neighbours, const float* x, int64_t quad) {
  Quad sums[2] = {};
  visit_neighbours(neighbours + quad * kNeighbours, x, load_quad(x + quad * kQuad),
                   [&](int i, Quad near) { sums[i % 2] += near; });
  return sums[0] + sums[1];
}

// The operator's values at a quad, see SolverTable.
inline Quad apply_quad(const int32_t* neighbours, const float* scale, const float* weight, const float* x,
                       int64_t quad) {
  const int32_t* at = neighbours + quad * kNeighbours;
  const Quad own = load_quad(x + quad * kQuad);
  const Quad own_scale = load_quad(scale + quad * kQuad);
  Quad apart[kNeighbours];
  visit_neighbours(at, x, own, [&](int i, Quad near) { apart[i] = own - near; });
  Quad sums[2] = {};
  visit_neighbours(at, scale, own_scale, [&](int i, Quad near) { sums[i % 2] += near * apart[i]; });
  return own_scale * (sums[0] + sums[1]) + load_quad(weight + quad * kQuad) * own;
}

// The bin of the middle of a level, which comes in 65536ths.
inline IntVec bins_of(Vec parts, float per_bin) {
  const Vec level = __builtin_convertvector(__builtin_convertvector(parts * 0x1p-16f, IntVec), Vec);
  return __builtin_convertvector((level + 0.5f) * per_bin, IntVec);
}

// Weights are BT.601's in 65536ths: those of luma sum to 1 and those of chroma to 0, so that grey is grey,
// and float32 holds all sums exactly.
void color_keys(int64_t count, const float* planes, int64_t stride, const ColorBins& bins, int32_t* keys) {
  const float* red = planes + (bins.swap_channels ? 2 * stride : 0);
  const float* green = planes + stride;
  const float* blue = planes + (bins.swap_channels ? 0 : 2 * stride);
  // 128 of each is subtracted, and U and V are given as much.
  constexpr float kMiddle = 128.0f * 65536.0f;
  for (int64_t x = 0; x < count; x += kLanes) {
    const Vec r = load(red + x);
    const Vec g = load(green + x);
    const Vec b = load(blue + x);
    const IntVec luma = bins_of(kMiddle + r * 19595.0f + g * 38470.0f + b * 7471.0f, bins.per_luma);
    const IntVec u = bins_of(kMiddle + b * 32768.0f - r * 11059.0f - g * 21709.0f, bins.per_chroma);
    const IntVec v = bins_of(kMiddle + r * 32768.0f - g * 27439.0f - b * 5329.0f, bins.per_chroma);
    const IntVec key = (luma & 3) + 4 * ((luma >> 2) + bins.luma_quads * (u + bins.chroma_bins * v));
    __builtin_memcpy(keys + x, &key, sizeof(key));
  }
}

void balance(int64_t begin, int64_t end, const int32_t* neighbours, const SolverVectors& v) {
  for (int64_t quad = begin; quad < end; ++quad) {
    const Quad scale = load_quad(v.scale + quad * kQuad);
    const Quad wanted = scale * load_quad(v.mass + quad * kQuad);
    const Quad blurred = 10.0f * scale + sum_neighbours(neighbours, v.scale, quad);
    const Quad square = wanted > 0.0f ? wanted / (blurred > 0.0f ? blurred : Quad{} + 1.0f) : Quad{};
    store_quad(v.next_scale + quad * kQuad, square_root(square));
  }
}

void set_up(int64_t begin, int64_t end, const int32_t* neighbours, float smoothness, const SolverVectors& v) {
  const float root = __builtin_sqrtf(smoothness);
  for (int64_t quad = begin; quad < end; ++quad) {
    const int64_t at = quad * kQuad;
    const Quad scale = load_quad(v.scale + at);
    const Quad weight = load_quad(v.weight + at);
    const Quad diagonal = smoothness * scale * sum_neighbours(neighbours, v.scale, quad) + weight;
    store_quad(v.next_scale + at, scale * root);
    store_quad(v.inverse + at, diagonal > 0.0f ? 1.0f / diagonal : Quad{});
    store_quad(v.x + at, weight > 0.0f ? load_quad(v.right + at) / weight : Quad{});
  }
}

double residual(int64_t begin, int64_t end, const int32_t* neighbours, const SolverVectors& v) {
  Quad total{};
  for (int64_t quad = begin; quad < end; ++quad) {
    const int64_t at = quad * kQuad;
    const Quad r = load_quad(v.right + at) - apply_quad(neighbours, v.next_scale, v.weight, v.x, quad);
    store_quad(v.r + at, r);
    store_quad(v.p + at, Quad{});
    total += r * r * load_quad(v.inverse + at);
  }
  return add_quad(total);
}

void turn(int64_t begin, int64_t end, float beta, const SolverVectors& v) {
  for_each_vector((end - begin) * kQuad, [&](int64_t i, auto get, auto put) {
    i += begin * kQuad;
    put(v.p + i, get(v.r + i) * get(v.inverse + i) + get(v.p + i) * beta);
  });
}

double apply(int64_t begin, int64_t end, const int32_t* neighbours, const SolverVectors& v) {
  const float* __restrict scale = v.next_scale;
  const float* __restrict weight = v.weight;
  const float* __restrict p = v.p;
  float* __restrict q = v.q;
  Quad total{};
  for (int64_t quad = begin; quad < end; ++quad) {
    const Quad applied = apply_quad(neighbours, scale, weight, p, quad);
    store_quad(q + quad * kQuad, applied);
    total += load_quad(p + quad * kQuad) * applied;
  }
  return add_quad(total);
}

double step(int64_t begin, int64_t end, float alpha, const SolverVectors& v) {
  Vec total{};
  for_each_vector((end - begin) * kQuad, [&](int64_t i, auto get, auto put) {
    i += begin * kQuad;
    put(v.x + i, get(v.x + i) + get(v.p + i) * alpha);
    const Vec r = get(v.r + i) - get(v.q + i) * alpha;
    put(v.r + i, r);
    total += r * r * get(v.inverse + i);
  });
  return static_cast<double>(add_lanes(total));
}

}  // namespace

extern const SolverTable solver_table;
const SolverTable solver_table = {color_keys, balance, set_up, residual, turn, apply, step};

}  // namespace patchcut::PATCHCUT_ISA
