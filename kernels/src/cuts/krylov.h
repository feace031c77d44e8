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

struct KrylovParams {
  int64_t k;
  int64_t block;       // vectors that are iterated together, at least k
  int64_t iterations;  // products with a block
  uint64_t seed;
};

// The k largest eigenvalues on the vectors that are orthogonal to `known`, largest first: Rayleigh and Ritz
// on the block Krylov space of a random block. A pair for which there is no room is zero.
void largest_eigenpairs(const SymmetricMatrix& matrix,
                        const float* known,  // [size], an eigenvector of unit length
                        const KrylovParams& params,
                        double* values,   // [k]
                        float* vectors);  // [k, size], orthonormal

}  // namespace patchcut
