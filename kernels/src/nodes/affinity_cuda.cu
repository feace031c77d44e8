// Three kernels. Rows are first normalised, one warp a row. Then each block fills one tile of the upper
// triangle and its mirror image below, and adds up the tile's rows and columns. The last kernel adds those
// sums to degrees, always in the same order, and in CC subtracts the share of the maximum, which is known
// only by then.
#include <cfloat>
#include <type_traits>

#include "cuda/gemm.cuh"
#include "cuda/launch.cuh"
#include "cuda/unit_rows.cuh"
#include "nodes/affinity.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
// Tiles of 64 read rows half as often as tiles of 32, but of few nodes they are too few to keep a GPU busy:
// from here on there are 78 or more. Chosen by that number, not by a measurement.
constexpr int64_t kLargeSide = 768;

// Block (x, y) of the upper triangle, counted row by row.
struct TriangleTile {
  int row;
  int col;
};

__device__ TriangleTile tile_of_triangle(int index, int side) {
  // The triangle's row r starts at r * side - r * (r - 1) / 2; a float root is off by at most one.
  const float middle = static_cast<float>(side) + 0.5f;
  int row = static_cast<int>(middle - sqrtf(fmaxf(middle * middle - 2.0f * static_cast<float>(index), 0.0f)));
  const auto start = [side](int r) { return r * side - r * (r - 1) / 2; };
  while (row > 0 && start(row) > index) --row;
  while (row + 1 < side && start(row + 1) <= index) ++row;
  return {row, row + index - start(row)};
}

// What the tiles leave behind for the last kernel.
struct TileSums {
  float* of_rows;  // [batch, side, n]: the sum of row i over the columns of tile j lies at [j, i]
  float* maxima;   // [batch, tiles]
};

template <class Tile>
struct FinishedTile {
  float values[Tile::kRows][Tile::kCols + 1];
};

template <class Tile>
__device__ float place_tile(const patchcut_affinity_params& params, int rows, int cols,
                            const float (&total)[Tile::kThreadRows][Tile::kThreadCols]) {
  auto& tile = shared_memory<FinishedTile<Tile>>().values;
  const float limit = params.kind == PATCHCUT_COSINE ? 1.0f : FLT_MAX;
  const bool sparse = params.mode == PATCHCUT_NCUT;
  float largest = -FLT_MAX;
#pragma unroll
  for (int i = 0; i < Tile::kThreadRows; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kThreadCols; ++j) {
      const int row = Tile::thread_row() + i;
      const int col = Tile::thread_col() + j;
      float value = fminf(fmaxf(total[i][j], -limit), limit);
      if (sparse && !(value > params.threshold)) value = 0.0f;
      tile[row][col] = value;
      if (row < rows && col < cols) largest = fmaxf(largest, value);
    }
  }
  __syncthreads();
  return largest;
}

// One block: one tile of side Tile::kRows and its mirror image. Shared memory: slices of the factors, then
// the tile.
template <class Tile, class Result>
__global__ void __launch_bounds__(kThreads)
    tile_kernel(const float* rows, int n, int d, int stride, patchcut_affinity_params params, int side,
                Result* affinity, TileSums sums) {
  static_assert(Tile::kRows == Tile::kCols && Tile::kThreads == kThreads);
  const int64_t item = blockIdx.y;
  const TriangleTile at = tile_of_triangle(static_cast<int>(blockIdx.x), side);
  const RowMajor<float> factor{rows + item * n * stride, n, d, stride, true};
  const int first_row = at.row * Tile::kRows;
  const int first_col = at.col * Tile::kCols;
  const int row_count = min(Tile::kRows, n - first_row);
  const int col_count = min(Tile::kCols, n - first_col);
  float total[Tile::kThreadRows][Tile::kThreadCols];
  multiply_tile<Tile>(factor, factor, first_row, first_col, total);
  const float largest = reduce_block<kThreads>(place_tile<Tile>(params, row_count, col_count, total), Max());

  const auto& tile = shared_memory<FinishedTile<Tile>>().values;
  Result* out = affinity + item * n * n;
  const int thread = static_cast<int>(threadIdx.x);
  for (int e = thread; e < Tile::kRows * Tile::kCols; e += kThreads) {
    const int i = e / Tile::kCols;
    const int j = e % Tile::kCols;
    if (i < row_count && j < col_count) {
      out[static_cast<int64_t>(first_row + i) * n + first_col + j] = from_float<Result>(tile[i][j]);
    }
    if (at.row != at.col && j < row_count && i < col_count) {
      out[static_cast<int64_t>(first_col + i) * n + first_row + j] = from_float<Result>(tile[j][i]);
    }
  }
  if (thread == 0) sums.maxima[item * gridDim.x + blockIdx.x] = largest;
  float* of_rows = sums.of_rows + item * side * n;
  if (thread < row_count) {
    float sum = 0.0f;
    for (int j = 0; j < col_count; ++j) sum += tile[thread][j];
    of_rows[static_cast<int64_t>(at.col) * n + first_row + thread] = sum;
  }
  const int col = thread - kThreads / 2;
  if (at.row != at.col && col >= 0 && col < col_count) {
    float sum = 0.0f;
    for (int i = 0; i < row_count; ++i) sum += tile[i][col];
    of_rows[static_cast<int64_t>(at.row) * n + first_col + col] = sum;
  }
}

// max(S) / alpha, in every thread of the block.
__device__ float share_of_maximum(const float* maxima, int tiles, float alpha) {
  float largest = maxima[0];
  for (int t = static_cast<int>(threadIdx.x); t < tiles; t += kThreads) largest = fmaxf(largest, maxima[t]);
  return reduce_block<kThreads>(largest, Max()) / alpha;
}

// One thread: the degree of one node.
__global__ void __launch_bounds__(kThreads) degrees_kernel(TileSums sums, int tiles, int n, int side,
                                                           patchcut_affinity_params params, float* degrees) {
  const int64_t item = blockIdx.y;
  const bool signed_mode = params.mode == PATCHCUT_CC;
  const float share = signed_mode ? share_of_maximum(sums.maxima + item * tiles, tiles, params.alpha) : 0.0f;
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= n) return;
  const float* of_rows = sums.of_rows + item * side * n;
  double total = -static_cast<double>(share) * n;
  for (int j = 0; j < side; ++j) total += static_cast<double>(of_rows[static_cast<int64_t>(j) * n + i]);
  degrees[item * n + i] = static_cast<float>(total);
}

// affinity = similarity - max(similarity) / alpha; one block: kThreads * kSubtracted entries.
constexpr int kSubtracted = 16;

template <class Result>
__global__ void __launch_bounds__(kThreads)
    subtract_kernel(const float* similarity, const float* maxima, int tiles, int64_t size, float alpha,
                    Result* affinity) {
  const int64_t item = blockIdx.y;
  const float share = share_of_maximum(maxima + item * tiles, tiles, alpha);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kSubtracted + threadIdx.x;
  for (int i = 0; i < kSubtracted; ++i) {
    const int64_t at = first + i * kThreads;
    if (at < size) affinity[item * size + at] = from_float<Result>(similarity[item * size + at] - share);
  }
}

struct Job {
  int64_t batch;
  int64_t n;
  int64_t d;
  const patchcut_affinity_params& params;
};

template <class Tile, class Result>
void fill(const Job& job, const UnitRows& rows, Result* affinity, float* degrees, CudaQueue& queue) {
  const int64_t side = ceil_div<int64_t>(job.n, Tile::kRows);
  const int64_t tiles = side * (side + 1) / 2;
  const unsigned items = static_cast<unsigned>(job.batch);
  const TileSums sums{queue.take<float>(job.batch * side * job.n), queue.take<float>(job.batch * tiles)};
  const auto fill_tiles = [&](auto* similarity) {
    launch(queue, tile_kernel<Tile, std::remove_pointer_t<decltype(similarity)>>,
           dim3(static_cast<unsigned>(tiles), items), kThreads, rows.data, static_cast<int>(job.n),
           static_cast<int>(job.d), static_cast<int>(rows.stride), job.params, static_cast<int>(side),
           similarity, sums);
  };
  if (job.params.mode == PATCHCUT_NCUT) {
    fill_tiles(affinity);
  } else {
    // Half would round before the share is subtracted and once more after it.
    float* similarity = queue.take<float>(sizeof(Result) == sizeof(float) ? 0 : job.batch * job.n * job.n);
    if constexpr (std::is_same_v<Result, float>) similarity = affinity;
    fill_tiles(similarity);
    const int64_t size = job.n * job.n;
    launch(queue, subtract_kernel<Result>,
           dim3(static_cast<unsigned>(ceil_div<int64_t>(size, kThreads * kSubtracted)), items), kThreads,
           similarity, sums.maxima, static_cast<int>(tiles), size, job.params.alpha, affinity);
  }
  if (degrees == nullptr) return;
  launch(queue, degrees_kernel, dim3(static_cast<unsigned>(ceil_div<int64_t>(job.n, kThreads)), items),
         kThreads, sums, static_cast<int>(tiles), static_cast<int>(job.n), static_cast<int>(side), job.params,
         degrees);
}

}  // namespace

void affinity_cuda(const void* features, int32_t dtype, int64_t batch, int64_t n, int64_t d,
                   const patchcut_affinity_params& params, void* affinity, int32_t affinity_dtype,
                   float* degrees, CudaQueue& queue) {
  if (batch == 0 || n == 0) return;
  const UnitRows rows = unit_rows(features, dtype, batch * n, d, params.kind == PATCHCUT_COSINE, queue);
  const Job job{batch, n, d, params};
  with_float_type(affinity_dtype, [&](auto zero) {
    auto* result = static_cast<decltype(zero)*>(affinity);
    if (n >= kLargeSide) {
      fill<GemmTile<4, 4>>(job, rows, result, degrees, queue);
    } else {
      fill<GemmTile<2, 2>>(job, rows, result, degrees, queue);
    }
  });
}

}  // namespace patchcut
