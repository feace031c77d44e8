// Rayleigh and Ritz on block Krylov spaces, as krylov.h has it: one space for each item of a batch. Every
// step is products of rows with vectors (multiply_kernel) and combinations of rows (combine_kernel); what is
// short is done by one block an item. No sum depends on the order in which blocks run.
#pragma once

#include <algorithm>
#include <cfloat>

#include "cpu/random.h"
#include "cuda/launch.cuh"
#include "cuts/krylov.h"

namespace patchcut {

constexpr int kKrylovThreads = 256;
constexpr int kKrylovWarps = kKrylovThreads / kWarp;

// Vectors of each item, one a row.
struct Vectors {
  float* data;
  int64_t item_stride;
  const int* ended;  // [batch], not 0 for an item whose vectors are left alone; or null: none is

  __device__ __forceinline__ float* of_item() const { return data + blockIdx.y * item_stride; }
  __device__ __forceinline__ bool has_ended() const { return ended != nullptr && ended[blockIdx.y] != 0; }
};

// ---- products of rows with vectors ----

// Row r of a matrix as multiply_kernel reads it: entry(r, j) times weight(j), finished by finish(r, dot,
// sum), where the sum of weight(j) x[j] is taken only if that is wanted.
struct PlainRows {
  static constexpr bool kWantsSum = false;
  Vectors matrix;
  int rows;
  int columns;

  __device__ __forceinline__ float entry(int row, int j) const {
    return matrix.of_item()[static_cast<int64_t>(row) * columns + j];
  }
  __device__ __forceinline__ float weight(int) const { return 1.0f; }
  __device__ __forceinline__ float finish(int, float dot, float) const { return dot; }
};

// products[v, row] = matrix.finish(row, sum_j entry(row, j) weight(j) x[v, j], sum_j weight(j) x[v, j]).
// One warp: one row, with four vectors at a time.
template <class Matrix>
__global__ void __launch_bounds__(kKrylovThreads)
    multiply_kernel(Matrix matrix, Vectors x, int count, Vectors products, int stride) {
  constexpr int kTogether = 4;
  const int row = static_cast<int>(blockIdx.x) * kKrylovWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (row >= matrix.rows || x.has_ended()) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float* vectors = x.of_item();
  float* out = products.of_item();
  for (int first = 0; first < count; first += kTogether) {
    float dot[kTogether] = {};
    float sum[kTogether] = {};
    for (int j = lane; j < matrix.columns; j += kWarp) {
      const float entry = matrix.entry(row, j);
      const float weight = matrix.weight(j);
#pragma unroll
      for (int v = 0; v < kTogether; ++v) {
        if (first + v >= count) continue;
        const float scaled = weight * vectors[static_cast<int64_t>(first + v) * matrix.columns + j];
        dot[v] += entry * scaled;
        sum[v] += scaled;
      }
    }
#pragma unroll
    for (int v = 0; v < kTogether; ++v) {
      if (first + v >= count) continue;  // of the whole warp
      dot[v] = reduce_warp(dot[v], Sum());
      if (Matrix::kWantsSum) sum[v] = reduce_warp(sum[v], Sum());
      if (lane == 0) {
        out[static_cast<int64_t>(first + v) * stride + row] = matrix.finish(row, dot[v], sum[v]);
      }
    }
  }
}

template <class Matrix>
void multiply(const Matrix& matrix, const Vectors& x, int64_t count, const Vectors& products, int64_t stride,
              int64_t batch, CudaQueue& queue) {
  const dim3 grid(static_cast<unsigned>(ceil_div(matrix.rows, kKrylovWarps)), static_cast<unsigned>(batch));
  launch(queue, multiply_kernel<Matrix>, grid, kKrylovThreads, matrix, x, static_cast<int>(count), products,
         static_cast<int>(stride));
}

// ---- combinations of rows ----

struct Combination {
  Vectors rows;    // [count, size]
  Vectors scales;  // [vectors, count]
  int count;
  int size;
  float sign;
  bool add;          // to what is there
  const int* ended;  // [batch], how many blocks there are of an item, or 0: all; or null
  int block_rows;

  __device__ __forceinline__ int rows_of_item() const {
    return ended != nullptr && ended[blockIdx.y] != 0 ? ended[blockIdx.y] * block_rows : count;
  }
};

// out[v, j] (+)= sign * sum_r scales[v, r] rows[r, j]; one thread: one j of vector blockIdx.z.
static __global__ void __launch_bounds__(kKrylovThreads) combine_kernel(Combination of, Vectors out) {
  const int j = static_cast<int>(blockIdx.x) * kKrylovThreads + static_cast<int>(threadIdx.x);
  if (j >= of.size || out.has_ended()) return;
  const int count = of.rows_of_item();
  const float* rows = of.rows.of_item() + j;
  const float* scales = of.scales.of_item() + static_cast<int64_t>(blockIdx.z) * of.count;
  float total = 0.0f;
  for (int r = 0; r < count; ++r) total += scales[r] * rows[static_cast<int64_t>(r) * of.size];
  float& entry = out.of_item()[static_cast<int64_t>(blockIdx.z) * of.size + j];
  entry = (of.add ? entry : 0.0f) + of.sign * total;
}

inline void combine(const Combination& of, int64_t vectors, const Vectors& out, int64_t batch,
                    CudaQueue& queue) {
  const dim3 grid(static_cast<unsigned>(ceil_div(of.size, kKrylovThreads)), static_cast<unsigned>(batch),
                  static_cast<unsigned>(vectors));
  launch(queue, combine_kernel, grid, kKrylovThreads, of, out);
}

// ---- the space ----

// Row 0 of the basis is the known vector, then come the blocks.
struct KrylovSpace {
  int size;
  int k;
  int block_rows;
  int blocks;
  int64_t batch;
  float* rows;          // [batch, 1 + (blocks + 1) * block_rows, size]
  float* coefficients;  // [batch, block_rows, 1 + blocks * block_rows]
  int* alive;           // [batch, width], 0 for a row of the basis that is zero
  float* projection;    // [batch, width, width]
  float* turned;        // the same, until it is diagonal: the projection itself where that is turned once
  float* rotation;      // [batch, width, width]
  float* values;        // [batch, k]
  float* scales;        // [batch, k, width]
  int* ended;           // [batch], after how many blocks an item has ended, or 0; null: none does early

  __host__ __device__ int width() const { return blocks * block_rows; }
  __host__ __device__ int64_t basis_stride() const {
    return static_cast<int64_t>(1 + width() + block_rows) * size;
  }
  __host__ __device__ Vectors basis() const { return {rows, basis_stride(), nullptr}; }
  __host__ __device__ Vectors block(int index) const {
    return {rows + static_cast<int64_t>(1 + index * block_rows) * size, basis_stride(), ended};
  }
  Vectors projections(int count) const {
    return {coefficients, static_cast<int64_t>(block_rows) * count, nullptr};
  }
  __device__ __forceinline__ int blocks_of(int64_t item) const {
    return ended != nullptr && ended[item] != 0 ? ended[item] : blocks;
  }
};

static __global__ void __launch_bounds__(kKrylovThreads)
    draw_kernel(Vectors block, int count, uint64_t seed) {
  const int at = static_cast<int>(blockIdx.x) * kKrylovThreads + static_cast<int>(threadIdx.x);
  if (at < count) block.of_item()[at] = RandomStream(seed, 0).uniform(static_cast<uint64_t>(at)) - 0.5f;
}

// Sums of x[i] y[i], the same in every thread of the block.
__device__ __forceinline__ float dot_block(const float* x, const float* y, int size) {
  float sum = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kKrylovThreads) sum += x[i] * y[i];
  return reduce_block<kKrylovThreads>(sum, Sum());
}

// One block: row blockIdx.x of an item's block -> the unit vector of a start with a little of that row; a
// start that is zeros or not finite leaves the row.
static __global__ void __launch_bounds__(kKrylovThreads)
    begin_kernel(Vectors block, Vectors starts, int size) {
  float* row = block.of_item() + static_cast<int64_t>(blockIdx.x) * size;
  const float* start = starts.of_item() + static_cast<int64_t>(blockIdx.x) * size;
  const int thread = static_cast<int>(threadIdx.x);
  float largest = 0.0f;
  for (int i = thread; i < size; i += kKrylovThreads) largest = fmaxf(largest, fabsf(start[i]));
  largest = reduce_block<kKrylovThreads>(largest, Max());
  if (largest == 0.0f) return;
  float squares = 0.0f;
  for (int i = thread; i < size; i += kKrylovThreads) squares += start[i] / largest * (start[i] / largest);
  squares = reduce_block<kKrylovThreads>(squares, Sum());
  if (!(squares <= FLT_MAX)) return;
  const float noise = kStartNoise / sqrtf(dot_block(row, row, size));
  const float scale = 1.0f / sqrtf(squares);
  for (int i = thread; i < size; i += kKrylovThreads) {
    row[i] = scale * (start[i] / largest) + noise * row[i];
  }
}

constexpr int kMaxTogether = 64;

struct OrthonormalizeShared {
  float dots[kMaxTogether];
};

// vector -= its part along `count` orthonormal rows; one warp takes one row's product at a time.
__device__ __forceinline__ void subtract_rows(const float* rows, int count, int size, float* vector) {
  auto& dots = shared_memory<OrthonormalizeShared>().dots;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int first = 0; first < count; first += kMaxTogether) {
    const int together = min(kMaxTogether, count - first);
    for (int r = static_cast<int>(threadIdx.x) / kWarp; r < together; r += kKrylovWarps) {
      const float* row = rows + static_cast<int64_t>(first + r) * size;
      float sum = 0.0f;
      for (int i = lane; i < size; i += kWarp) sum += row[i] * vector[i];
      sum = reduce_warp(sum, Sum());
      if (lane == 0) dots[r] = sum;
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < size; i += kKrylovThreads) {
      float part = 0.0f;
      for (int r = 0; r < together; ++r) part += dots[r] * rows[static_cast<int64_t>(first + r) * size + i];
      vector[i] -= part;
    }
    __syncthreads();
  }
}

// One block: Gram and Schmidt among the vectors of one item's block, of which the first `room` fit
// into the space; one that is shorter than `least` becomes zero.
static __global__ void __launch_bounds__(kKrylovThreads)
    orthonormalize_kernel(Vectors block, int count, int size, int room, float least, int* alive, int width) {
  if (block.has_ended()) return;
  float* rows = block.of_item();
  for (int c = 0; c < count; ++c) {
    float* vector = rows + static_cast<int64_t>(c) * size;
    subtract_rows(rows, c, size, vector);
    const float squares = dot_block(vector, vector, size);
    const bool lives = c < room && squares > least * least;
    const float scale = lives ? 1.0f / sqrtf(squares) : 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < size; i += kKrylovThreads) vector[i] *= scale;
    if (threadIdx.x == 0) alive[static_cast<int64_t>(blockIdx.y) * width + c] = lives ? 1 : 0;
    __syncthreads();
  }
}

// Products of a block with the basis become columns of the projection, and its mirror image.
static __global__ void __launch_bounds__(kKrylovThreads)
    store_kernel(KrylovSpace space, int block, int count) {
  const int at = static_cast<int>(blockIdx.x) * kKrylovThreads + static_cast<int>(threadIdx.x);
  const int c = at / (count - 1);
  const int r = at % (count - 1);
  const int width = space.width();
  const int column = block * space.block_rows + c;
  const int64_t item = blockIdx.y;
  if (c >= space.block_rows || r > column || (space.ended != nullptr && space.ended[item] != 0)) return;
  const float entry = space.coefficients[(item * space.block_rows + c) * count + 1 + r];
  float* projection = space.projection + item * width * width;
  projection[r * width + column] = entry;
  projection[column * width + r] = entry;
}

// ---- the small eigenproblem: Jacobi's rotations, every pair once a sweep ----

constexpr float kNegligible = 1e-8f;  // beside the diagonal: turning it would only add rounding errors
constexpr int kSweeps = 12;           // at most
constexpr int kSharedJacobi = 48;     // rows that fit shared memory
constexpr int kJacobiThreads = 256;

struct JacobiShared {
  float matrix[kSharedJacobi * kSharedJacobi];
  float rotation[kSharedJacobi * kSharedJacobi];
};

struct Turn {
  int first;
  int second;
  float cosine;
  float sine;
};

// Pair `index` of a round robin of an even number of players.
__device__ __forceinline__ void pair_of_round(int players, int round, int index, int* first, int* second) {
  const int others = players - 1;
  const int a = index == 0 ? others : (round + index) % others;
  const int b = (round + others - index) % others;
  *first = min(a, b);
  *second = max(a, b);
}

__device__ __forceinline__ Turn make_turn(const float* matrix, int n, int round, int index) {
  Turn turn;
  pair_of_round(n, round, index, &turn.first, &turn.second);
  const float beside = matrix[turn.first * n + turn.second];
  turn.cosine = 1.0f;
  turn.sine = 0.0f;
  const float first = matrix[turn.first * (n + 1)];
  const float second = matrix[turn.second * (n + 1)];
  if (fabsf(beside) <= kNegligible * (fabsf(first) + fabsf(second))) return turn;
  const float ratio = (second - first) / (2.0f * beside);
  const float tangent = copysignf(1.0f, ratio) / (fabsf(ratio) + sqrtf(ratio * ratio + 1.0f));
  turn.cosine = 1.0f / sqrtf(tangent * tangent + 1.0f);
  turn.sine = tangent * turn.cosine;
  return turn;
}

__device__ __forceinline__ void rotate(const Turn& turn, float* first, float* second) {
  const float f = *first;
  const float s = *second;
  *first = turn.cosine * f - turn.sine * s;
  *second = turn.sine * f + turn.cosine * s;
}

constexpr int kMaxPairs = 1024;

struct TurnsShared {
  Turn turns[kMaxPairs];
};

// Diagonalises `matrix` [n, n]; the rows of `rotation` become the vectors. It ends with a sweep that
// turned nothing, or after kSweeps. All threads of the block call it.
__device__ __forceinline__ void jacobi(int n, float* matrix, float* rotation) {
  auto& turns = shared_memory<TurnsShared>().turns;
  const int thread = static_cast<int>(threadIdx.x);
  const int pairs = n / 2;
  bool turned = true;
  for (int sweep = 0; sweep < kSweeps && __syncthreads_or(turned); ++sweep) {
    turned = false;
    for (int round = 0; round + 1 < n; ++round) {
      for (int p = thread; p < pairs; p += kJacobiThreads) {
        turns[p] = make_turn(matrix, n, round, p);
        turned = turned || turns[p].sine != 0.0f;
      }
      __syncthreads();
      for (int e = thread; e < pairs * n; e += kJacobiThreads) {
        const Turn& turn = turns[e / n];
        const int j = e % n;
        rotate(turn, matrix + turn.first * n + j, matrix + turn.second * n + j);
        rotate(turn, rotation + turn.first * n + j, rotation + turn.second * n + j);
      }
      __syncthreads();
      for (int e = thread; e < pairs * n; e += kJacobiThreads) {
        const Turn& turn = turns[e % pairs];
        float* row = matrix + e / pairs * n;
        rotate(turn, row + turn.first, row + turn.second);
      }
      __syncthreads();
    }
  }
}

// Zero rows of the basis get an eigenvalue below all others; gives how many are not zero.
__device__ __forceinline__ int lower_zero_rows(int n, const int* alive, float* matrix) {
  const int thread = static_cast<int>(threadIdx.x);
  float squares = 0.0f;
  for (int e = thread; e < n * n; e += kJacobiThreads) squares += matrix[e] * matrix[e];
  squares = reduce_block<kJacobiThreads>(squares, Sum());
  int living = 0;
  for (int i = thread; i < n; i += kJacobiThreads) {
    living += alive[i];
    if (alive[i] == 0) matrix[i * (n + 1)] = -1.0f - sqrtf(squares);
  }
  living = reduce_block<kJacobiThreads>(living, Sum());
  __syncthreads();
  return living;
}

// What is found in the first `count` rows of the basis.
struct Ritz {
  int count;
  int living;       // pairs beyond are of zero rows
  float* matrix;    // [count, count], the values on its diagonal
  float* rotation;  // [count, count], vectors in rows

  __device__ __forceinline__ float value(int i) const { return matrix[i * (count + 1)]; }
  __device__ __forceinline__ int rank_of(int i) const {
    int rank = 0;
    for (int j = 0; j < count; ++j) rank += value(j) > value(i) || (value(j) == value(i) && j < i) ? 1 : 0;
    return rank;
  }
};

// All threads of the block call it.
__device__ __forceinline__ Ritz solve_ritz(const KrylovSpace& space, int64_t item, int n) {
  const int thread = static_cast<int>(threadIdx.x);
  const int width = space.width();
  const int64_t at = item * width * width;
  float* matrix = space.turned + at;
  float* rotation = space.rotation + at;
  if (n <= kSharedJacobi) {
    auto& shared = shared_memory<JacobiShared>();
    matrix = shared.matrix;
    rotation = shared.rotation;
  }
  for (int e = thread; e < n * n; e += kJacobiThreads) {
    matrix[e] = space.projection[at + e / n * width + e % n];
    rotation[e] = e / n == e % n ? 1.0f : 0.0f;
  }
  __syncthreads();
  const int living = lower_zero_rows(n, space.alive + item * width, matrix);
  jacobi(n, matrix, rotation);
  return {n, living, matrix, rotation};
}

// One block: the k largest eigenvalues of one item's projection, and their vectors.
static __global__ void __launch_bounds__(kJacobiThreads) ritz_kernel(KrylovSpace space) {
  const int64_t item = blockIdx.y;
  const int n = space.blocks_of(item) * space.block_rows;
  const Ritz ritz = solve_ritz(space, item, n);
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kJacobiThreads) {
    const int rank = ritz.rank_of(i);
    if (rank >= space.k) continue;
    space.values[item * space.k + rank] = rank < ritz.living ? ritz.value(i) : 0.0f;
    float* scales = space.scales + (item * space.k + rank) * space.width();
    for (int j = 0; j < n; ++j) scales[j] = ritz.rotation[i * n + j];
  }
}

struct SettleShared {
  float least;
};

// One block: an item ends after block `index` where its pairs are what is sought, see is_settled in
// krylov.cpp; block index + 1 holds what the products have beyond the basis. Products of these with each
// other go where those with the basis were.
static __global__ void __launch_bounds__(kJacobiThreads)
    settle_kernel(KrylovSpace space, int index, float tolerance, bool of_root) {
  const int64_t item = blockIdx.y;
  if (space.ended[item] != 0 || index + 1 < kFewestProducts) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int rows = space.block_rows;
  const float* left = space.block(index + 1).of_item();
  float* gram = space.coefficients + item * rows * (1 + (index + 1) * rows);
  for (int e = 0; e < rows * rows; ++e) {
    const float product = dot_block(left + static_cast<int64_t>(e / rows) * space.size,
                                    left + static_cast<int64_t>(e % rows) * space.size, space.size);
    if (thread == 0) gram[e] = product;
  }
  const int n = (index + 1) * rows;
  const Ritz ritz = solve_ritz(space, item, n);
  if (ritz.living < space.k) return;
  auto& shared = shared_memory<SettleShared>();
  for (int i = thread; i < n; i += kJacobiThreads) {
    if (ritz.rank_of(i) == space.k - 1) shared.least = ritz.value(i);
  }
  __syncthreads();
  bool unsettled = false;
  for (int i = thread; i < n; i += kJacobiThreads) {
    const int rank = ritz.rank_of(i);
    if (rank >= ritz.living) continue;
    const float* of_block = ritz.rotation + (i + 1) * n - rows;
    float squares = 0.0f;
    for (int e = 0; e < rows * rows; ++e) squares += of_block[e / rows] * of_block[e % rows] * gram[e];
    const float value = ritz.value(i);
    const float residual = sqrtf(fmaxf(squares, 0.0f));
    const float beside = of_root ? sqrtf(fmaxf(value, 0.0f)) : 1.0f;
    const bool reaches = value + kApart * residual >= shared.least;
    unsettled = unsettled || (rank < space.k ? residual > tolerance * beside : reaches);
  }
  if (!__syncthreads_or(unsettled) && thread == 0) space.ended[item] = index + 1;
}

// One block: what one found vector makes of its product with the matrix is its value; those of turned
// matrices have the rounding errors of all turns.
static __global__ void __launch_bounds__(kKrylovThreads)
    quotient_kernel(KrylovSpace space, Vectors found, Vectors products) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * space.size;
  const float* x = found.of_item() + at;
  const float along = dot_block(x, products.of_item() + at, space.size);
  const float squares = dot_block(x, x, space.size);
  if (threadIdx.x == 0) {
    space.values[static_cast<int64_t>(blockIdx.y) * space.k + blockIdx.x] =
        squares > 0.0f ? along / squares : 0.0f;
  }
}

// Of vector c of the item blockIdx.y, never above the ones before it.
__device__ __forceinline__ float value_of(const KrylovSpace& space, int c) {
  const float* values = space.values + static_cast<int64_t>(blockIdx.y) * space.k;
  float value = values[0];
  for (int i = 1; i <= c; ++i) value = fminf(value, values[i]);
  return value;
}

// ---- all of it ----

struct KrylovSearch {
  int64_t k;
  int64_t iterations;  // products with a block, at most
  uint64_t seed;
  bool started;  // from given vectors
  float tolerance;
  bool of_root;  // see krylov.h
};

// Of a block: two vectors take little longer than one.
inline int64_t vectors_of_block(const KrylovSearch& search) {
  return krylov_block(search.k, search.started, true);
}

// Takes the memory of a space.
inline KrylovSpace take_space(int64_t batch, int64_t size, const KrylovSearch& search, CudaQueue& queue) {
  const int64_t k = search.k;
  const int64_t block_rows = vectors_of_block(search);
  const int64_t max_blocks = std::max<int64_t>(1, ceil_div(size - 1, block_rows));
  const int64_t blocks = std::min(search.iterations, max_blocks);
  const int64_t width = blocks * block_rows;
  require(width <= 2 * kMaxPairs, queue.op(),
          "iterations times vectors must be at most " + std::to_string(2 * kMaxPairs) + " on CUDA, got " +
              std::to_string(width));
  const bool may_end = search.tolerance > 0.0f;
  float* projection = queue.take<float>(batch * width * width);
  return {static_cast<int>(size),
          static_cast<int>(k),
          static_cast<int>(block_rows),
          static_cast<int>(blocks),
          batch,
          queue.take<float>(batch * (1 + width + block_rows) * size),
          queue.take<float>(batch * block_rows * (1 + width)),
          queue.take<int>(batch * width),
          projection,
          may_end && width > kSharedJacobi ? queue.take<float>(batch * width * width) : projection,
          queue.take<float>(batch * width * width),
          queue.take<float>(batch * k),
          queue.take<float>(batch * k * width),
          may_end ? queue.take<int>(batch) : nullptr};
}

// coefficients = products of the block with the first `count` rows of the basis
inline void project(const KrylovSpace& space, int index, int count, CudaQueue& queue) {
  multiply(PlainRows{space.basis(), count, space.size}, space.block(index), space.block_rows,
           space.projections(count), count, space.batch, queue);
}

inline void subtract_projection(const KrylovSpace& space, int index, int count, CudaQueue& queue) {
  combine({space.basis(), space.projections(count), count, space.size, -1.0f, true, nullptr, 0},
          space.block_rows, space.block(index), space.batch, queue);
}

// Of a block from which its projections on the first `count` rows were subtracted; see krylov.cpp.
inline void orthonormalize(const KrylovSpace& space, int index, int count, CudaQueue& queue) {
  const int room = space.size - 1 - index * space.block_rows;
  const auto among_themselves = [&](float least) {
    launch(queue, orthonormalize_kernel, dim3(1, static_cast<unsigned>(space.batch)), kKrylovThreads,
           space.block(index), space.block_rows, space.size, room, least,
           space.alive + index * space.block_rows, space.width());
  };
  among_themselves(1e-15f);
  project(space, index, count, queue);
  subtract_projection(space, index, count, queue);
  among_themselves(0.5f);
}

// Fills space.values, and vectors [batch, k, size], from the known vectors in row 0 of the basis; `start`
// [batch, k, size], if there are some. multiply_by(x, count, products) multiplies the matrix by vectors.
template <class Multiply>
void largest_eigenpairs(const KrylovSpace& space, const KrylovSearch& search, const Vectors& start,
                        const Multiply& multiply_by, const Vectors& vectors, CudaQueue& queue) {
  const unsigned items = static_cast<unsigned>(space.batch);
  const auto blocks_of = [items](int64_t count) {
    return dim3(static_cast<unsigned>(ceil_div<int64_t>(count, kKrylovThreads)), items);
  };
  if (space.ended != nullptr) queue.clear(space.ended, space.batch);
  const int drawn = space.block_rows * space.size;
  launch(queue, draw_kernel, blocks_of(drawn), kKrylovThreads, space.block(0), drawn, search.seed);
  if (search.started) {
    launch(queue, begin_kernel, dim3(static_cast<unsigned>(space.k), items), kKrylovThreads, space.block(0),
           start, space.size);
  }
  project(space, 0, 1, queue);
  subtract_projection(space, 0, 1, queue);
  orthonormalize(space, 0, 1, queue);
  for (int b = 0; b < space.blocks; ++b) {
    const int count = 1 + (b + 1) * space.block_rows;
    multiply_by(space.block(b), space.block_rows, space.block(b + 1));
    project(space, b + 1, count, queue);
    launch(queue, store_kernel, blocks_of(space.block_rows * (count - 1)), kKrylovThreads, space, b, count);
    if (b + 1 == space.blocks) break;
    subtract_projection(space, b + 1, count, queue);
    if (space.ended != nullptr) {
      launch(queue, settle_kernel, dim3(1, items), kJacobiThreads, space, b, search.tolerance,
             search.of_root);
    }
    orthonormalize(space, b + 1, count, queue);
  }
  launch(queue, ritz_kernel, dim3(1, items), kJacobiThreads, space);
  const Vectors scales{space.scales, static_cast<int64_t>(space.k) * space.width(), nullptr};
  const Vectors basis{space.block(0).data, space.basis_stride(), nullptr};
  combine({basis, scales, space.width(), space.size, 1.0f, false, space.ended, space.block_rows}, space.k,
          vectors, space.batch, queue);
}

}  // namespace patchcut
