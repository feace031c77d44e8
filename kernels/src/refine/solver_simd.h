#pragma once

#include "cpu/simd.h"

namespace patchcut {

constexpr int64_t kQuad = 4;   // vertices of a quad, see bilateral_grid.h
constexpr int64_t kSums = 4;   // of a vertex: its pixels, their confidence, that times the value, 0
constexpr int64_t kSides = 8;  // of a quad: the quads before and after it in U, V, x and y
constexpr int64_t kNeighbours = 2 + kSides;  // with those in luma
constexpr int64_t kBlockQuads = 256;         // whose sums are added up by one thread
constexpr int64_t kBlockRows = kBlockQuads * (1 + kNeighbours) + (1 + kSides) * kSides;

// The neighbours of quads, by blocks of kBlockQuads quads. A quad's row is its first vertex, the first
// vertices of the quads before and after it in luma (4 * quads where there is none), then those of the sides
// that it has: half of all are missing, and what is not listed is not loaded. Rows come in the order of their
// sides' number, so that loops over them have a fixed length. kSides elements separate the numbers.
struct QuadGraph {
  int64_t quads;
  const int32_t* side_counts;  // [blocks, kSides + 1], quads with 0, 1, 2.. sides
  const int32_t* rows;         // [blocks, kBlockRows]
};

// How colors become bins.
struct ColorBins {
  float per_luma;       // 1 / sigma
  float per_chroma;     // 1 / sigma
  int luma_bits;        // of a key
  int32_t chroma_bins;  // with one that stays empty
  bool swap_channels;   // BGR
};

// Vectors over the vertices, [quads, 4]; 0 at vertices that are not there. Those whose neighbours are read
// have one quad more, of zeros.
struct SolverVectors {
  float* mass;        // pixels
  float* weight;      // sum of their confidence
  float* right;       // sum of their confidence times their value
  float* scale;       // the paper's D_n; [quads + 1, 4]
  float* next_scale;  // of the next iteration; then scale * sqrt(smoothness); [quads + 1, 4]
  float* inverse;     // 1 / the operator's diagonal
  float* x;           // [quads + 1, 4]
  float* r;
  float* p;  // [quads + 1, 4]
  float* q;
};

// The hot loops of bilateral_solver, most of them on a block of quads. A vertex has ten neighbours at most;
// the operator is A x = s_i * (sum over neighbours j of s_j (x_i - x_j)) + weight_i x_i, with s = next_scale.
// It takes differences: where the data are few, a sum of both sides would leave nothing of them in float32.
struct SolverTable {
  PATCHCUT_PER_ISA(SolverTable);

  // keys[x] = bin of luma + 2^luma_bits * (bin of U + chroma_bins * bin of V) of planes of B, G and R
  // less 128.
  virtual void color_keys(int64_t count, const int8_t* planes, int64_t stride, const ColorBins& bins,
                          int32_t* keys) const = 0;
  // Adds pixels to sums[vertex, kSums]; gives the least of their confidence and 0.
  virtual float splat(int64_t count, const int32_t* vertices, const float* confidence, const float* soft_map,
                      float* sums) const = 0;
  // mass, weight and right of vertices from `first` on, and 1 as the scale of those that are there; gives
  // whether all are finite.
  virtual bool take_sums(int64_t first, int64_t vertices, const float* sums,
                         const SolverVectors& v) const = 0;
  // next_scale = sqrt(scale * mass / (10 scale + the sum of its neighbours))
  virtual void balance(int64_t block, const QuadGraph& graph, const SolverVectors& v) const = 0;
  // next_scale, inverse, and x = right / weight
  virtual void set_up(int64_t block, const QuadGraph& graph, float smoothness,
                      const SolverVectors& v) const = 0;
  // r = right - A x, p = inverse r; gives r . p
  virtual double residual(int64_t block, const QuadGraph& graph, const SolverVectors& v) const = 0;
  // q = A p; gives p . q
  virtual double apply(int64_t block, const QuadGraph& graph, const SolverVectors& v) const = 0;
  // r -= alpha q; gives r . inverse r
  virtual double step(int64_t block, const QuadGraph& graph, float alpha, const SolverVectors& v) const = 0;
  // x += alpha p, which is here because p is, then p = inverse r + beta p
  virtual void turn(int64_t block, const QuadGraph& graph, float alpha, float beta,
                    const SolverVectors& v) const = 0;
};

}  // namespace patchcut
