#include "cuts/krylov.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cpu/interrupt.h"
#include "cpu/random.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "cuts/simd.h"
#include "cuts/symmetric_eigen.h"

namespace patchcut {
namespace {

constexpr uint64_t kStartStream = 0;
constexpr int64_t kColumns = 512;  // of a task, so that a vector's part stays in the L1 cache

// Row 0 is the known vector, then come the blocks.
struct Basis {
  const SimdTable& simd;
  const CutTable& loops;
  int64_t size;
  int64_t block_rows;
  float* rows;          // [1 + (blocks + 1) * block_rows, size]
  float* coefficients;  // [block_rows, 1 + blocks * block_rows]

  float* block(int64_t index) const { return rows + (1 + index * block_rows) * size; }
};

// coefficients[c, r] = rows[r] . block[c], of the first `count` rows
void project(const Basis& basis, int64_t count, const float* block) {
  const int64_t group = basis.loops.row_group;
  parallel_for((count + group - 1) / group, basis.block_rows * basis.size * group / 8,
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin * group; r < std::min(end * group, count); r += group) {
                   const int64_t rows = std::min(group, count - r);
                   for (int64_t c = 0; c < basis.block_rows; ++c) {
                     float* sums = basis.coefficients + c * count + r;
                     std::fill_n(sums, rows, 0.0f);
                     basis.loops.dot_rows(rows, basis.size, basis.rows + r * basis.size, basis.size,
                                          block + c * basis.size, sums);
                   }
                 }
               });
}

// out[c] += sum over r of scales[c, r] * rows[r], of `outs` vectors c and `count` rows
void combine(const Basis& basis, const float* rows, int64_t count, int64_t outs, const float* scales,
             float* out) {
  const int64_t tasks = (basis.size + kColumns - 1) / kColumns;
  parallel_for(tasks, outs * count * kColumns / 8, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin * kColumns; j < std::min(end * kColumns, basis.size); j += kColumns) {
      const int64_t columns = std::min(kColumns, basis.size - j);
      for (int64_t c = 0; c < outs; ++c) {
        for (int64_t r = 0; r < count; r += basis.loops.row_group) {
          basis.loops.add_rows(std::min(basis.loops.row_group, count - r), columns, rows + r * basis.size + j,
                               basis.size, scales + c * count + r, out + c * basis.size + j);
        }
      }
    }
  });
}

void subtract_projection(const Basis& basis, int64_t count, float* block) {
  for (int64_t i = 0; i < basis.block_rows * count; ++i) basis.coefficients[i] = -basis.coefficients[i];
  combine(basis, basis.rows, count, basis.block_rows, basis.coefficients, block);
}

// Gram and Schmidt among the vectors of a block; one that is shorter than `least` becomes zero.
void orthonormalize_block(const Basis& basis, float least, float* block) {
  InterruptPoll poll;
  for (int64_t c = 0; c < basis.block_rows; ++c) {
    poll.spend(c * basis.size / 8);
    float* vector = block + c * basis.size;
    for (int64_t r = 0; r < c; r += basis.loops.row_group) {
      float sums[kMaxRows] = {};
      const int64_t rows = std::min(basis.loops.row_group, c - r);
      basis.loops.dot_rows(rows, basis.size, block + r * basis.size, basis.size, vector, sums);
      for (float& sum : sums) sum = -sum;
      basis.loops.add_rows(rows, basis.size, block + r * basis.size, basis.size, sums, vector);
    }
    const float squares = basis.simd.sum_squares(basis.size, vector);
    const float scale = squares > least * least ? 1.0f / std::sqrt(squares) : 0.0f;
    basis.simd.scale_row(basis.size, vector, scale, vector);
  }
}

// Of a block from which its projections on the first `count` rows were subtracted. What is left of it may be
// little more than rounding errors, a new direction as good as any, so that it is projected again: one that
// is shortened then has no direction of its own.
void orthonormalize(const Basis& basis, int64_t count, float* block) {
  orthonormalize_block(basis, 1e-15f, block);
  project(basis, count, block);
  subtract_projection(basis, count, block);
  orthonormalize_block(basis, 0.5f, block);
}

// row -> the unit vector of `start` with a little of the row; a start of zeros leaves the row.
void begin_with(const SimdTable& simd, int64_t size, const float* start, float* row) {
  const float largest = simd.largest_magnitude(size, start);
  if (largest == 0.0f) return;
  double squares = 0.0;
  for (int64_t i = 0; i < size; ++i) {
    const double part = start[i] / largest;
    squares += part * part;
  }
  const double scale = 1.0 / std::sqrt(squares);
  const double noise = kStartNoise / std::sqrt(static_cast<double>(simd.sum_squares(size, row)));
  for (int64_t i = 0; i < size; ++i) {
    row[i] = static_cast<float>(scale * (start[i] / largest) + noise * row[i]);
  }
}

void start(const Basis& basis, const KrylovParams& params) {
  const RandomStream random(params.seed, kStartStream);
  float* block = basis.block(0);
  for (int64_t i = 0; i < basis.block_rows * basis.size; ++i) block[i] = random.uniform(i) - 0.5f;
  for (int64_t c = 0; params.start != nullptr && c < params.k; ++c) {
    begin_with(basis.simd, basis.size, params.start + c * basis.size, block + c * basis.size);
  }
  project(basis, 1, block);
  subtract_projection(basis, 1, block);
  orthonormalize(basis, 1, block);
}

// Nothing is orthogonal to a whole space: what rounding left beyond it must go.
void clear_beyond_space(const Basis& basis, int64_t blocks) {
  float* end = basis.block(blocks);
  float* first = basis.rows + std::min(basis.size, 1 + blocks * basis.block_rows) * basis.size;
  std::fill(first, end, 0.0f);
}

// Zero rows of the basis get an eigenvalue below all others. Returns how many there are.
int64_t lower_zero_rows(const Basis& basis, int64_t width, double* projection) {
  const double squares = std::inner_product(projection, projection + width * width, projection, 0.0);
  int64_t zeros = 0;
  for (int64_t i = 0; i < width; ++i) {
    if (basis.simd.sum_squares(basis.size, basis.rows + (1 + i) * basis.size) > 0.0f) continue;
    projection[i * (width + 1)] = -1.0 - std::sqrt(squares);
    ++zeros;
  }
  return zeros;
}

// Ritz pairs of the first `width` vectors of the basis.
struct Ritz {
  int64_t width;
  int64_t found;     // those beyond are of zero rows
  double* values;    // [width], largest first
  double* rotation;  // [width, width], vectors in rows
};

void solve(const Basis& basis, const double* projection, int64_t stride, Ritz& ritz) {
  for (int64_t i = 0; i < ritz.width; ++i) {
    std::copy_n(projection + i * stride, ritz.width, ritz.rotation + i * ritz.width);
  }
  ritz.found = ritz.width - lower_zero_rows(basis, ritz.width, ritz.rotation);
  symmetric_eigen(ritz.width, ritz.rotation, ritz.values);
}

// Whether the first k pairs are what is sought; `left` is what the last block's products have beyond the
// basis, whose combinations are the residuals.
bool is_settled(const Basis& basis, const KrylovParams& params, const Ritz& ritz, const float* left) {
  if (ritz.found < params.k) return false;
  const int64_t rows = basis.block_rows;
  Scratch scratch;
  float* gram = scratch.take<float>(rows * rows);
  std::fill_n(gram, rows * rows, 0.0f);
  for (int64_t c = 0; c < rows; ++c) {
    for (int64_t r = 0; r < rows; r += basis.loops.row_group) {
      basis.loops.dot_rows(std::min(basis.loops.row_group, rows - r), basis.size, left + r * basis.size,
                           basis.size, left + c * basis.size, gram + c * rows + r);
    }
  }
  const double least = ritz.values[params.k - 1];
  for (int64_t i = 0; i < ritz.found; ++i) {
    const double* of_block = ritz.rotation + (i + 1) * ritz.width - rows;
    double squares = 0.0;
    for (int64_t c = 0; c < rows; ++c) {
      for (int64_t r = 0; r < rows; ++r) squares += of_block[c] * of_block[r] * gram[c * rows + r];
    }
    const double residual = std::sqrt(std::max(0.0, squares));
    const double beside = params.of_root ? std::sqrt(std::max(0.0, ritz.values[i])) : 1.0;
    const double reach = ritz.values[i] + kApart * residual;
    if (i < params.k ? residual > params.tolerance * beside : reach >= least) return false;
  }
  return true;
}

// Fills the blocks of the basis and `projection` [blocks * block, blocks * block] of the matrix on them, and
// solves it; gives the number of products.
int64_t build(const SymmetricMatrix& matrix, const Basis& basis, int64_t blocks, const KrylovParams& params,
              double* projection, Ritz& ritz) {
  const int64_t width = blocks * basis.block_rows;
  start(basis, params);
  for (int64_t b = 0; b < blocks; ++b) {
    clear_beyond_space(basis, b + 1);
    float* products = basis.block(b + 1);
    matrix.multiply(basis.block_rows, basis.block(b), products);
    const int64_t count = 1 + (b + 1) * basis.block_rows;
    project(basis, count, products);
    for (int64_t c = 0; c < basis.block_rows; ++c) {
      const int64_t column = b * basis.block_rows + c;
      for (int64_t r = 0; r <= column; ++r) {
        const double entry = basis.coefficients[c * count + 1 + r];
        projection[r * width + column] = projection[column * width + r] = entry;
      }
    }
    const bool is_last = b + 1 == blocks;
    ritz.width = count - 1;
    const bool may_end = params.tolerance > 0.0 && b + 1 >= kFewestProducts;
    if (is_last || may_end) solve(basis, projection, width, ritz);
    if (is_last) break;
    subtract_projection(basis, count, products);
    if (may_end && is_settled(basis, params, ritz, products)) return b + 1;
    orthonormalize(basis, count, products);
  }
  return blocks;
}

}  // namespace

int64_t largest_eigenpairs(const SymmetricMatrix& matrix, const float* known, const KrylovParams& params,
                           double* values, float* vectors) {
  const int64_t size = matrix.size();
  const int64_t room = std::max<int64_t>(1, (size - 1 + params.block - 1) / params.block);
  const int64_t blocks = std::min(params.iterations, room);
  const int64_t width = blocks * params.block;
  Scratch scratch;
  const SimdTable& table = simd();
  const Basis basis{table,
                    table.get<CutTable>(),
                    size,
                    params.block,
                    scratch.take<float>((1 + width + params.block) * size),
                    scratch.take<float>(params.block * (1 + width))};
  double* projection = scratch.take<double>(width * width);
  Ritz ritz{0, 0, scratch.take<double>(width), scratch.take<double>(width * width)};
  std::copy_n(known, size, basis.rows);
  const int64_t products = build(matrix, basis, blocks, params, projection, ritz);
  for (int64_t c = 0; c < params.k; ++c) values[c] = c < ritz.found ? ritz.values[c] : 0.0;
  float* scales = basis.coefficients;
  for (int64_t i = 0; i < params.k * ritz.width; ++i) scales[i] = static_cast<float>(ritz.rotation[i]);
  std::fill_n(vectors, params.k * size, 0.0f);
  combine(basis, basis.block(0), ritz.width, params.k, scales, vectors);
  return products;
}

}  // namespace patchcut
