#pragma once

#include <cstdint>

namespace patchcut {

// Eigenvalues of a symmetric matrix, largest first, and their vectors of unit length.
void symmetric_eigen(int64_t n,
                     double* matrix,   // [n, n], becomes the vectors, one a row
                     double* values);  // [n]

}  // namespace patchcut
