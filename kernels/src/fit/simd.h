#pragma once

#include "cpu/simd.h"

namespace patchcut {

// What changes from one step of AdamW (arXiv 1711.05101) to the next.
struct AdamWStep {
  float decay;       // 1 - learning rate * weight decay
  float step_size;   // learning rate / (1 - beta1^t)
  float root_scale;  // (1 - beta2^t)^-1/2
};

// The hot loops of gnn_fit.
struct FitTable {
  PATCHCUT_PER_ISA(FitTable);

  // c[m, n] = a[m, k] b[n, k]^T for few rows of b: reads a once.
  virtual void multiply_by_rows(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                                int64_t ldb, float* c, int64_t ldc) const = 0;
  // out = max(x, 0); gives the least of x and 0.
  virtual float keep_positive(int64_t count, const float* x, float* out) const = 0;
  // x = elu(x)
  virtual void elu_row(int64_t count, float* x) const = 0;
  // gradient *= elu'(x) where y = elu(x)
  virtual void elu_slope_row(int64_t count, const float* y, float* gradient) const = 0;
  // kept[i] = 1 / (1 - dropout), or 0 where number first + i of the stream is below dropout.
  virtual void dropout_row(int64_t count, uint64_t seed, uint64_t stream, uint64_t first, float dropout,
                           float* kept) const = 0;
  // One step of AdamW with torch's betas and epsilon.
  virtual void adamw_row(int64_t count, const AdamWStep& step, const float* gradient, float* mean,
                         float* square, float* values) const = 0;
};

}  // namespace patchcut
