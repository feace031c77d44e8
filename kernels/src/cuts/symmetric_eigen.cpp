#include "cuts/symmetric_eigen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "cpu/interrupt.h"
#include "cpu/scratch.h"

namespace patchcut {
namespace {

// x becomes the unit vector v of the reflection I - 2 v v' that maps x onto a multiple of the first axis, or
// zero where x lies there already; returns the multiple.
double make_reflection(int64_t count, double* x) {
  const double tail = std::inner_product(x + 1, x + count, x + 1, 0.0);
  const double first = x[0];
  if (tail == 0.0) {
    std::fill_n(x, count, 0.0);
    return first;
  }
  const double norm = std::sqrt(first * first + tail);
  const double image = first > 0.0 ? -norm : norm;
  x[0] = first - image;
  const double scale = 1.0 / std::sqrt(x[0] * x[0] + tail);
  for (int64_t i = 0; i < count; ++i) x[i] *= scale;
  return image;
}

// product = v' rows. Sums run down the rows, which a compiler vectorises without reordering them.
void multiply_rows(int64_t rows, int64_t count, int64_t stride, const double* v, const double* matrix,
                   double* product) {
  std::fill_n(product, count, 0.0);
  for (int64_t i = 0; i < rows; ++i) {
    const double* row = matrix + i * stride;
    for (int64_t j = 0; j < count; ++j) product[j] += v[i] * row[j];
  }
}

// block -> (I - 2 v v') block (I - 2 v v')
void reflect_both_sides(int64_t count, int64_t stride, const double* v, double* block, double* product) {
  multiply_rows(count, count, stride, v, block, product);
  const double along = std::inner_product(v, v + count, product, 0.0);
  for (int64_t i = 0; i < count; ++i) product[i] = 2.0 * (product[i] - along * v[i]);
  for (int64_t i = 0; i < count; ++i) {
    double* row = block + i * stride;
    for (int64_t j = 0; j < count; ++j) row[j] -= v[i] * product[j] + product[i] * v[j];
  }
}

// block -> (I - 2 v v') block
void reflect_rows(int64_t count, int64_t stride, const double* v, double* block, double* product) {
  multiply_rows(count, count, stride, v, block, product);
  for (int64_t i = 0; i < count; ++i) {
    double* row = block + i * stride;
    for (int64_t j = 0; j < count; ++j) row[j] -= 2.0 * v[i] * product[j];
  }
}

// Householder's reduction: matrix = rotation * tridiagonal * rotation', and becomes rotation'.
void tridiagonalize(int64_t n, double* matrix, double* diagonal, double* beside) {
  Scratch scratch;
  double* rotation = scratch.take<double>(n * n);
  double* product = scratch.take<double>(n);
  InterruptPoll poll;
  for (int64_t c = 0; c + 1 < n; ++c) {
    poll.spend((n - c) * (n - c));
    double* v = matrix + c * n + c + 1;  // row c is done with: the reflection is kept there
    beside[c] = make_reflection(n - c - 1, v);
    reflect_both_sides(n - c - 1, n, v, matrix + (c + 1) * (n + 1), product);
  }
  beside[n - 1] = 0.0;
  std::fill_n(rotation, n * n, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    diagonal[i] = matrix[i * (n + 1)];
    rotation[i * (n + 1)] = 1.0;
  }
  for (int64_t c = n - 2; c >= 0; --c) {
    poll.spend((n - c) * n);
    reflect_rows(n - c - 1, n, matrix + c * n + c + 1, rotation + (c + 1) * (n + 1), product);
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) matrix[j * n + i] = rotation[i * n + j];
  }
}

// The end of the block that starts at `first` and has no negligible entry beside its diagonal.
int64_t block_end(int64_t n, int64_t first, const double* diagonal, const double* beside) {
  constexpr double kNegligible = std::numeric_limits<double>::epsilon();
  int64_t last = first;
  while (last + 1 < n) {
    const double around = std::fabs(diagonal[last]) + std::fabs(diagonal[last + 1]);
    if (std::fabs(beside[last]) <= kNegligible * around) break;
    ++last;
  }
  return last;
}

// One implicit QL step with Wilkinson's shift on rows [first, last], applied to the rows of `vectors` too.
void ql_step(int64_t n, int64_t first, int64_t last, double* diagonal, double* beside, double* vectors) {
  const double slope = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
  const double root = std::sqrt(slope * slope + 1.0);
  double bulge = diagonal[last] - diagonal[first] + beside[first] / (slope + std::copysign(root, slope));
  double cosine = 1.0;
  double sine = 1.0;
  double moved = 0.0;
  for (int64_t i = last - 1; i >= first; --i) {
    const double chased = sine * beside[i];
    const double kept = cosine * beside[i];
    const double length = std::sqrt(chased * chased + bulge * bulge);
    beside[i + 1] = length;
    if (length == 0.0) {
      diagonal[i + 1] -= moved;
      beside[last] = 0.0;
      return;
    }
    sine = chased / length;
    cosine = bulge / length;
    const double shifted = diagonal[i + 1] - moved;
    const double turned = (diagonal[i] - shifted) * sine + 2.0 * cosine * kept;
    moved = sine * turned;
    diagonal[i + 1] = shifted + moved;
    bulge = cosine * turned - kept;
    double* upper = vectors + i * n;
    double* lower = upper + n;
    for (int64_t j = 0; j < n; ++j) {
      const double u = upper[j];
      const double l = lower[j];
      upper[j] = cosine * u - sine * l;
      lower[j] = sine * u + cosine * l;
    }
  }
  diagonal[first] -= moved;
  beside[first] = bulge;
  beside[last] = 0.0;
}

void sort_largest_first(int64_t n, double* values, double* vectors) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t largest = std::max_element(values + i, values + n) - values;
    if (largest == i) continue;
    std::swap(values[i], values[largest]);
    std::swap_ranges(vectors + i * n, vectors + (i + 1) * n, vectors + largest * n);
  }
}

}  // namespace

void symmetric_eigen(int64_t n, double* matrix, double* values) {
  constexpr int kMaxSteps = 60;  // two are usual
  Scratch scratch;
  double* beside = scratch.take<double>(n);
  tridiagonalize(n, matrix, values, beside);
  InterruptPoll poll;
  for (int64_t first = 0; first < n; ++first) {
    for (int step = 0; step < kMaxSteps; ++step) {
      const int64_t last = block_end(n, first, values, beside);
      if (last == first) break;
      poll.spend((last - first) * n);
      ql_step(n, first, last, values, beside, matrix);
    }
  }
  sort_largest_first(n, values, matrix);
}

}  // namespace patchcut
