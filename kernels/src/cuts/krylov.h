#pragma once

#include <cstdint>

namespace patchcut {

// A symmetric matrix, known by its products.
class SymmetricMatrix {
 public:
  virtual ~SymmetricMatrix() = default;
  virtual int64_t size() const = 0;
  virtual void multiply(int64_t count,
                        const float* x,              // [count, size]
                        float* products) const = 0;  // [count, size]
};

// Of a start vector beside what is random, so that none is without a direction of its own.
constexpr float kStartNoise = 1e-3f;
// Before which it never ends: what is random must have shown first what the start has no part of.
constexpr int kFewestProducts = 3;
// How many residuals above a Ritz value an eigenvalue may hide. From a start that is another eigenvector, on
// 1800 random graphs, the first one was missed 86 times with 1, 31 with 2, 9 with 3; videos took the same
// products with each.
constexpr float kApart = 3.0f;

// Vectors that are iterated together for k eigenpairs: where some are given to start from, at least one more
// is random, which finds what they have no part of.
inline int64_t krylov_block(int64_t k, bool started, bool even) {
  const int64_t block = k + (started ? 1 : 0);
  return even ? block + block % 2 : block;
}

struct KrylovParams {
  int64_t k;
  int64_t block;       // vectors that are iterated together, at least k
  int64_t iterations;  // products with a block, at most
  uint64_t seed;
  const float* start;  // [k, size], what the first vectors of the block start from, or null: random
  double tolerance;    // of residuals: it ends where all are as small; 0: never
  bool of_root;        // whether these are beside the root of the eigenvalue
};

// The k largest eigenvalues on the vectors that are orthogonal to `known`, largest first: Rayleigh and Ritz
// on the block Krylov space of a block. A pair for which there is no room is zero. It ends early where the
// residuals are within the tolerance, and no other Ritz value comes within kApart residuals of those found:
// an eigenvector that the start has no part of is still growing then. Gives the number of products.
int64_t largest_eigenpairs(const SymmetricMatrix& matrix,
                           const float* known,  // [size], an eigenvector of unit length
                           const KrylovParams& params,
                           double* values,   // [k]
                           float* vectors);  // [k, size], orthonormal

}  // namespace patchcut
