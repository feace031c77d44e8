#pragma once

#include <cstdint>

namespace patchcut {

constexpr int64_t kQuad = 4;         // vertices of a quad, see bilateral_grid.h
constexpr int64_t kNeighbours = 10;  // of a quad

// How colors become bins. There is one bin more than needed on each axis, which stays empty.
struct ColorBins {
  float per_luma;    // 1 / sigma
  float per_chroma;  // 1 / sigma
  int32_t luma_quads;
  int32_t chroma_bins;
  bool swap_channels;  // BGR
};

// Vectors over the vertices, [quads, 4]; 0 at vertices that are not there. Those whose neighbours are read
// have one quad more, of zeros.
struct SolverVectors {
  const float* mass;    // pixels
  const float* weight;  // sum of their confidence
  const float* right;   // sum of their confidence times their value
  float* scale;         // the paper's D_n; [quads + 1, 4]
  float* next_scale;    // of the next iteration; then scale * sqrt(smoothness); [quads + 1, 4]
  float* inverse;       // 1 / the operator's diagonal
  float* x;             // [quads + 1, 4]
  float* r;
  float* p;  // [quads + 1, 4]
  float* q;
};

// The hot loops of bilateral_solver, on quads [begin, end). A vertex has ten neighbours at most; the operator
// is A x = s_i * (sum over neighbours j of s_j (x_i - x_j)) + weight_i x_i, with s = next_scale. It takes
// differences: where the data are few, a sum of both sides would leave nothing of them in float32.
struct SolverTable {
  // keys[x] = bin of luma % 4 + 4 * (bin of luma / 4 + luma_quads * (bin of U + chroma_bins * bin of V)) of
  // planes of B, G and R less 128; reads and writes whole vectors.
  void (*color_keys)(int64_t count, const float* planes, int64_t stride, const ColorBins& bins,
                     int32_t* keys);
  // next_scale = sqrt(scale * mass / (10 scale + the sum of its neighbours))
  void (*balance)(int64_t begin, int64_t end, const int32_t* neighbours, const SolverVectors& v);
  // next_scale, inverse, and x = right / weight
  void (*set_up)(int64_t begin, int64_t end, const int32_t* neighbours, float smoothness,
                 const SolverVectors& v);
  // r = right - A x, p = 0; gives r . inverse r
  double (*residual)(int64_t begin, int64_t end, const int32_t* neighbours, const SolverVectors& v);
  // p = inverse r + beta p
  void (*turn)(int64_t begin, int64_t end, float beta, const SolverVectors& v);
  // q = A p; gives p . q
  double (*apply)(int64_t begin, int64_t end, const int32_t* neighbours, const SolverVectors& v);
  // x += alpha p, r -= alpha q; gives r . inverse r
  double (*step)(int64_t begin, int64_t end, float alpha, const SolverVectors& v);
};

}  // namespace patchcut
