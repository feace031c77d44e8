#pragma once

#include <cstdint>

#include "cpu/scratch.h"
#include "cuts/krylov.h"
#include "cuts/simd.h"

namespace patchcut {

// D^-1/2 W D^-1/2 of weights in memory. A node without edges gets a row of zeros.
class DenseGraph : public SymmetricMatrix {
 public:
  // W = floor + (1 - floor) * weights.
  DenseGraph(const char* op,
             const float* weights,   // [n, n], symmetric; read above the diagonal
             const float* row_sums,  // [n], of weights, where they are known, or null
             int64_t n, float floor, Scratch& scratch);

  int64_t size() const override { return n_; }
  void multiply(int64_t count, const float* x, float* products) const override;

  const float* scales() const { return scales_; }  // [n], D^-1/2
  const float* known() const { return known_; }    // [n], D^1/2 1, of unit length

 private:
  void multiply_weights(int64_t count, const float* x, float* products) const;
  int64_t strip_begin(int64_t strip) const;
  void multiply_strip(int64_t strip, int64_t count, const float* x, float* sums) const;
  void add_strips(int64_t count, const float* sums, const float* floors, float* products) const;

  const SimdTable& simd_;
  const CutTable& loops_;
  const float* weights_;
  int64_t n_;
  float floor_;
  int64_t strips_;
  float* scales_;
  float* known_;
};

// G = F' D^-1 F of the rows F = (features of unit length, root of the offset), with F F' = W: it has the
// eigenvalues of D^-1/2 W D^-1/2, and of an eigenvector v the latter has D^-1/2 F v. There are fewer features
// than nodes, and a product reads them once.
class CosineGraph : public SymmetricMatrix {
 public:
  CosineGraph(const char* op,
              const float* features,  // [n, d], finite
              int64_t n, int64_t d, float offset, Scratch& scratch);

  int64_t size() const override { return d_ + (root_offset_ > 0.0f ? 1 : 0); }
  void multiply(int64_t count, const float* x, float* products) const override;
  // out[c] = D^-1 F x[c]; [count, n]
  void to_nodes(int64_t count, const float* x, float* out) const;
  // out[c] = F' x[c]; x [count, n], out [count, size]
  void from_nodes(int64_t count, const float* x, float* out) const;

  const float* known() const { return known_; }  // [size], F' 1, of unit length

 private:
  void gather(int64_t count, const float* x, float* products) const;
  void gather_strip(int64_t strip, int64_t count, const float* x, float* sums) const;
  void weigh(int64_t first, int64_t rows, const float* x, float* weights) const;

  const SimdTable& simd_;
  const CutTable& loops_;
  int64_t n_;
  int64_t d_;
  float root_offset_;
  float* rows_;             // [n, d]
  float* inverse_degrees_;  // [n], 0 of a node without edges
  float* known_;
};

}  // namespace patchcut
