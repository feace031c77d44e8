// Five kernels. Points and centroids become float rows, of length 1 for cosine, one warp a row; a warp finds
// how far rounding may move the scores of a centroid; each block multiplies tiles of 64 points with 64
// centroids at a time and keeps, of each point, the centroid of the largest score where rounding leaves no
// doubt; a warp takes the distance of a point to it, or where there is doubt to all; and a block adds up 64
// columns of one cluster's points in a slice of the chunk, always in the same order. Only tiles of scores are
// ever stored.
#include <algorithm>
#include <cmath>

#include "clusters/cluster_sums.cuh"
#include "clusters/kmeans_sums.h"
#include "clusters/score_error.h"
#include "cuda/gemm.cuh"
#include "cuda/last_block.cuh"
#include "cuda/launch.cuh"
#include "cuda/unit_rows.cuh"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kPointsOfBlock = 4 * kWarps;  // of a distance_kernel
constexpr int kMostSlices = 16;
constexpr int kLeastSlice = 4096;                // points
constexpr int64_t kMostSums = int64_t{1} << 23;  // doubles of all slices
using Tile = GemmTile<4, 4>;

// A row's length, with what squares that underflow leave out; the whole warp calls it.
__device__ float length_of(const float* row, int d, float lost) {
  float squares = 0.0f;
  for (int p = static_cast<int>(threadIdx.x) % kWarp; p < d; p += kWarp) squares += row[p] * row[p];
  return sqrtf(reduce_warp(squares, Sum()) + lost);
}

// ---- the nearest centroid

struct Bounds {
  float* low;    // [k], half a centroid's square, and what of the error is its own
  float* high;   // [k], less that error
  float* slope;  // [k], error over the length of a point
  int* longest;  // [1], bits of the length of the longest centroid
};

// Of scores, as ScoreError has it.
struct Error {
  double share;
  double least;
  float lost;
};

// One warp: one centroid.
__global__ void __launch_bounds__(kThreads) bounds_kernel(Points centroids, Error error, Bounds bounds) {
  const int c = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (c >= centroids.n) return;
  const float* row = centroids.row(0, c);
  double squares = 0.0;
  for (int p = static_cast<int>(threadIdx.x) % kWarp; p < centroids.d; p += kWarp) {
    squares += static_cast<double>(row[p]) * static_cast<double>(row[p]);
  }
  squares = reduce_warp(squares, Sum());
  if (threadIdx.x % kWarp != 0) return;
  const double own = error.share * squares / 2 + error.least;
  bounds.low[c] = static_cast<float>(squares / 2 + own);
  bounds.high[c] = static_cast<float>(squares / 2 - own);
  bounds.slope[c] = static_cast<float>(error.share * sqrt(squares));
  const float length =
      squares < static_cast<double>(kLargestScore) ? static_cast<float>(sqrt(squares)) : INFINITY;
  atomicMax(bounds.longest, __float_as_int(length));  // lengths are ordered as their bits are
}

// The centroids that one thread, or several, have seen, for one point.
struct Best {
  float low = -INFINITY;     // the largest that a score is at least
  float high = -INFINITY;    // the largest that one may be
  float second = -INFINITY;  // the same of all but that one
  int index = 0;             // of `high`

  __device__ void take(const Best& other) {
    low = fmaxf(low, other.low);
    second = fmaxf(fmaxf(second, other.second), fminf(high, other.high));
    if (other.high > high) {
      high = other.high;
      index = other.index;
    }
  }
};

struct ScoreShared {
  float lengths[Tile::kRows];
};

// Lengths of a tile's points, infinite where products may overflow: then all centroids may be nearest.
__device__ void measure_points(const Points& points, int first_row, float longest, float lost,
                               ScoreShared& shared) {
  for (int i = static_cast<int>(threadIdx.x) / kWarp; i < Tile::kRows; i += kWarps) {
    if (first_row + i >= points.n) break;
    const float length = length_of(points.row(0, first_row + i), points.d, lost);
    if (threadIdx.x % kWarp == 0) shared.lengths[i] = length * longest < kLargestScore ? length : INFINITY;
  }
  __syncthreads();
}

// One block: Tile::kRows points and all centroids. labels: -1 where rounding leaves a doubt.
__global__ void __launch_bounds__(kThreads)
    score_kernel(RowMajor<float> rows, RowMajor<float> targets, Points points, Bounds bounds, float lost,
                 int32_t* labels) {
  static_assert(Tile::kThreads == kThreads);
  auto& shared = shared_memory<ScoreShared>();
  const int first_row = static_cast<int>(blockIdx.x) * Tile::kRows;
  measure_points(points, first_row, __int_as_float(*bounds.longest), lost, shared);
  Best best[Tile::kThreadRows];
  for (int first_col = 0; first_col < targets.rows; first_col += Tile::kCols) {
    float total[Tile::kThreadRows][Tile::kThreadCols];
    multiply_tile<Tile>(rows, targets, first_row, first_col, total);
#pragma unroll
    for (int j = 0; j < Tile::kThreadCols; ++j) {
      const int col = first_col + Tile::thread_col() + j;
      if (col >= targets.rows) continue;
      const float low = bounds.low[col], high = bounds.high[col], slope = bounds.slope[col];
#pragma unroll
      for (int i = 0; i < Tile::kThreadRows; ++i) {
        if (first_row + Tile::thread_row() + i >= rows.rows) continue;
        const float error = slope * shared.lengths[Tile::thread_row() + i];
        const float most = total[i][j] - (high - error);
        Best one;
        one.low = total[i][j] - (low + error);
        one.high = most == most ? most : INFINITY;  // of what overflowed nothing is known
        one.index = col;
        best[i].take(one);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < Tile::kThreadRows; ++i) {
    for (int lanes = Tile::kSide / 2; lanes > 0; lanes /= 2) {
      Best other;
      other.low = __shfl_xor_sync(kAllLanes, best[i].low, lanes);
      other.high = __shfl_xor_sync(kAllLanes, best[i].high, lanes);
      other.second = __shfl_xor_sync(kAllLanes, best[i].second, lanes);
      other.index = __shfl_xor_sync(kAllLanes, best[i].index, lanes);
      best[i].take(other);
    }
    const int row = first_row + Tile::thread_row() + i;
    if (Tile::thread_col() != 0 || row >= rows.rows) continue;
    labels[row] = best[i].second < best[i].low ? best[i].index : -1;
  }
}

// ---- distances

// Of which only the differences are rounded to float; the whole warp calls it.
__device__ double squared_distance(const float* x, const float* y, int d) {
  double sum = 0.0;
  for (int p = static_cast<int>(threadIdx.x) % kWarp; p < d; p += kWarp) {
    const double difference = static_cast<double>(x[p] - y[p]);
    sum += difference * difference;
  }
  return reduce_warp(sum, Sum());
}

struct Results {
  int32_t* labels;             // [n]
  float* distances;            // [n]
  unsigned long long* counts;  // [k]
  double* inertia;             // [1]
};

struct DistanceShared {
  float distances[kPointsOfBlock];
};

// Settles the label of a point, and counts it.
__device__ void settle_point(const Points& points, const Points& centroids, bool cosine, int i,
                             const Results& results, DistanceShared& shared) {
  const float* row = points.row(0, i);
  int label = results.labels[i];
  double least = INFINITY;
  if (label >= 0) {
    least = squared_distance(row, centroids.row(0, label), points.d);
  } else {
    label = 0;
    for (int c = 0; c < centroids.n; ++c) {
      const double distance = squared_distance(row, centroids.row(0, c), points.d);
      if (!(distance < least)) continue;
      least = distance;
      label = c;
    }
  }
  if (threadIdx.x % kWarp != 0) return;
  const float distance = static_cast<float>(cosine ? 0.5 * least : least);
  results.labels[i] = label;
  results.distances[i] = distance;
  shared.distances[i % kPointsOfBlock] = distance;
  atomicAdd(&results.counts[label], 1ull);
}

// One block: kPointsOfBlock points, a warp one at a time; the last one adds up all distances.
__global__ void __launch_bounds__(kThreads)
    distance_kernel(Points points, Points centroids, bool cosine, double* block_sums, int* arrived,
                    Results results) {
  auto& shared = shared_memory<DistanceShared>();
  const int first = static_cast<int>(blockIdx.x) * kPointsOfBlock;
  const int end = min(points.n, first + kPointsOfBlock);
  for (int i = first + static_cast<int>(threadIdx.x) / kWarp; i < end; i += kWarps) {
    settle_point(points, centroids, cosine, i, results, shared);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double sum = 0.0;
    for (int i = 0; i < end - first; ++i) sum += static_cast<double>(shared.distances[i]);
    block_sums[blockIdx.x] = sum;
  }
  const int blocks = static_cast<int>(gridDim.x);
  if (!is_last_block(arrived, blocks)) return;
  double total = 0.0;
  for (int b = static_cast<int>(threadIdx.x); b < blocks; b += kThreads) total += block_sums[b];
  total = reduce_block<kThreads>(total, Sum());
  if (threadIdx.x == 0) *results.inertia = total;
}

// ---- sums

struct Slices {
  int count;
  int size;      // points of each
  double* sums;  // [count, k, stride]
  int* arrived;  // [k, column_blocks]
};

// One block: kSumColumns columns of the sum of one cluster's points in slice blockIdx.y; the last slice to
// get here adds up all.
__global__ void __launch_bounds__(kSumThreads)
    sums_kernel(Points points, const int32_t* labels, int k, int column_blocks, Slices slices, double* sums) {
  auto& shared = shared_memory<ClusterSumsShared>();
  const int c = static_cast<int>(blockIdx.x) / column_blocks;
  const int first_column = static_cast<int>(blockIdx.x) % column_blocks * kSumColumns;
  const int begin = static_cast<int>(blockIdx.y) * slices.size;
  add_members(points, labels, 0, begin, min(points.n, begin + slices.size), c, first_column, shared);
  const int column = static_cast<int>(threadIdx.x);
  const bool mine = column < kSumColumns && first_column + column < points.d;
  const auto part = [&](int slice) -> double& {
    return slices.sums[(static_cast<int64_t>(slice) * k + c) * points.stride + first_column + column];
  };
  if (mine) part(static_cast<int>(blockIdx.y)) = column_sum(shared, column);
  if (!is_last_block(slices.arrived + blockIdx.x, slices.count) || !mine) return;
  double sum = 0.0;
  for (int slice = 0; slice < slices.count; ++slice) sum += part(slice);
  sums[static_cast<int64_t>(c) * points.d + first_column + column] = sum;
}

void queue_sums(const Points& points, const int32_t* labels, int64_t k, double* sums, CudaQueue& queue) {
  const int column_blocks = ceil_div(points.d, kSumColumns);
  const int64_t most = std::min<int64_t>(kMostSlices, std::max<int64_t>(1, kMostSums / (k * points.stride)));
  const int count = static_cast<int>(std::min<int64_t>(most, ceil_div(points.n, kLeastSlice)));
  const Slices slices{count, ceil_div(points.n, count), queue.take<double>(count * k * points.stride),
                      queue.take<int>(k * column_blocks)};
  queue.clear(slices.arrived, k * column_blocks);
  const dim3 grid(static_cast<unsigned>(k * column_blocks), static_cast<unsigned>(count));
  launch(queue, sums_kernel, grid, kSumThreads, points, labels, static_cast<int>(k), column_blocks, slices,
         sums);
}

Points as_points(const UnitRows& rows, int64_t n, int64_t d) {
  return {rows.data, static_cast<int>(n), static_cast<int>(d), static_cast<int>(rows.stride)};
}

}  // namespace

void kmeans_sums_cuda(const void* points, int32_t dtype, int64_t n, int64_t d, const float* centroids,
                      int64_t k, const patchcut_kmeans_sums_params& params, int32_t* labels, float* distances,
                      double* sums, int64_t* counts, double* inertia, CudaQueue& queue) {
  queue.clear(counts, k);
  if (n == 0) {
    queue.clear(inertia, 1);
    if (sums != nullptr) queue.clear(sums, k * d);
    return;
  }
  const bool cosine = params.metric == PATCHCUT_COSINE_DISTANCE;
  const UnitRows rows = unit_rows(points, dtype, n, d, cosine, queue);
  const UnitRows targets = unit_rows(centroids, PATCHCUT_FLOAT32, k, d, cosine, queue);
  const Points of_rows = as_points(rows, n, d), of_targets = as_points(targets, k, d);
  const ScoreError error(d);
  const Bounds bounds{queue.take<float>(k), queue.take<float>(k), queue.take<float>(k), queue.take<int>(1)};
  queue.clear(bounds.longest, 1);
  launch(queue, bounds_kernel, static_cast<unsigned>(ceil_div<int64_t>(k, kWarps)), kThreads, of_targets,
         Error{error.share, error.least, lost_squares(d)}, bounds);
  launch(queue, score_kernel, static_cast<unsigned>(ceil_div<int64_t>(n, Tile::kRows)), kThreads,
         row_major(rows.data, n, d, rows.stride), row_major(targets.data, k, d, targets.stride), of_rows,
         bounds, lost_squares(d), labels);
  const int64_t blocks = ceil_div<int64_t>(n, kPointsOfBlock);
  int* arrived = queue.take<int>(1);
  queue.clear(arrived, 1);
  launch(queue, distance_kernel, static_cast<unsigned>(blocks), kThreads, of_rows, of_targets, cosine,
         queue.take<double>(blocks), arrived,
         Results{labels, distances, reinterpret_cast<unsigned long long*>(counts), inertia});
  if (sums != nullptr) queue_sums(of_rows, labels, k, sums, queue);
}

}  // namespace patchcut
