// Four kernels. Features and prototypes are normalised, one warp a row; each block multiplies one tile of
// cosines; then one warp takes a row's best, and in place its softmax.
#include <cfloat>

#include "clusters/assign.h"
#include "cuda/arg_largest.cuh"
#include "cuda/gemm.cuh"
#include "cuda/launch.cuh"
#include "cuda/unit_rows.cuh"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
using Tile = GemmTile<2, 2>;

// One block: a tile of features @ prototypes^T of item blockIdx.z; `features` are those of the first item.
__global__ void __launch_bounds__(kThreads)
    cosines_kernel(RowMajor<float> features, RowMajor<float> prototypes, float* cosines) {
  static_assert(Tile::kThreads == kThreads);
  const int64_t item = blockIdx.z;
  features.data += item * features.rows * features.stride;
  const int first_row = static_cast<int>(blockIdx.x) * Tile::kRows;
  const int first_col = static_cast<int>(blockIdx.y) * Tile::kCols;
  float total[Tile::kThreadRows][Tile::kThreadCols];
  multiply_tile<Tile>(features, prototypes, first_row, first_col, total);
#pragma unroll
  for (int i = 0; i < Tile::kThreadRows; ++i) {
    const int row = first_row + Tile::thread_row() + i;
#pragma unroll
    for (int j = 0; j < Tile::kThreadCols; ++j) {
      const int col = first_col + Tile::thread_col() + j;
      if (row >= features.rows || col >= prototypes.rows) continue;
      cosines[(item * features.rows + row) * prototypes.rows + col] = total[i][j];
    }
  }
}

// x[c] = softmax(x / temperature) for x whose largest value is `largest`; the whole warp calls it.
__device__ void soften(float* x, int c, float largest, float temperature) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sum = 0.0f;
  for (int j = lane; j < c; j += kWarp) {
    x[j] = expf((x[j] - largest) / temperature);
    sum += x[j];
  }
  const float scale = 1.0f / reduce_warp(sum, Sum());
  for (int j = lane; j < c; j += kWarp) x[j] *= scale;
}

// One warp: one row.
__global__ void __launch_bounds__(kThreads)
    choose_kernel(float* cosines, int64_t rows, int c, float temperature, bool soft, int32_t* labels,
                  float* similarity) {
  constexpr int kWarps = kThreads / kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float* x = cosines + row * c;
  IndexedValue best = indexed(-FLT_MAX, 0);
  for (int j = lane; j < c; j += kWarp) best = max(best, indexed(x[j], j));
  best = reduce_warp(best, Max());
  if (lane == 0) {
    labels[row] = index_of(best);
    similarity[row] = fminf(fmaxf(float_of(best), -1.0f), 1.0f);
  }
  if (soft) soften(x, c, float_of(best), temperature);
}

}  // namespace

void assign_cuda(const void* features, int32_t dtype, int64_t batch, int64_t n, int64_t d,
                 const float* prototypes, int64_t c, float temperature, int32_t* labels, float* similarity,
                 float* assignment, CudaQueue& queue) {
  if (batch == 0 || n == 0) return;
  const UnitRows rows = unit_rows(features, dtype, batch * n, d, true, queue);
  const UnitRows targets = unit_rows(prototypes, PATCHCUT_FLOAT32, c, d, true, queue);
  float* cosines = assignment != nullptr ? assignment : queue.take<float>(batch * n * c);
  const dim3 tiles(static_cast<unsigned>(ceil_div<int64_t>(n, Tile::kRows)),
                   static_cast<unsigned>(ceil_div<int64_t>(c, Tile::kCols)), static_cast<unsigned>(batch));
  launch(queue, cosines_kernel, tiles, kThreads, row_major(rows.data, n, d, rows.stride),
         row_major(targets.data, c, d, targets.stride), cosines);
  launch(queue, choose_kernel, static_cast<unsigned>(ceil_div<int64_t>(batch * n, kThreads / kWarp)),
         kThreads, cosines, batch * n, static_cast<int>(c), temperature, assignment != nullptr, labels,
         similarity);
}

}  // namespace patchcut
