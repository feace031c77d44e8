// Four kernels. Rows of features and memory are normalised, one warp a row. Then each block takes the queries
// of one tile of the grid and one frame of the memory, and keeps of each query's window the nearest patches.
// The last kernel finds the nearest of all frames and blends their values.
#include <cfloat>

#include "cuda/arg_largest.cuh"
#include "cuda/gemm.cuh"
#include "cuda/launch.cuh"
#include "cuda/unit_rows.cuh"
#include "video/propagate.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMostKept = 64;  // two a lane
constexpr int kTileRows = 4;
constexpr int kTileColumns = 8;
using Tile = GemmTile<2, 2>;

struct Geometry {
  int frames;
  int slots;
  int height;
  int width;
  int radius;
  int topk;

  __host__ __device__ int nodes() const { return height * width; }
  __host__ __device__ int tiles_across() const { return ceil_div(width, kTileColumns); }
  __host__ __device__ int tiles() const { return ceil_div(height, kTileRows) * tiles_across(); }
};

// Patches of a rectangle of one frame, row by row: a factor as RowMajor is.
struct Rectangle {
  static constexpr bool kAlongDepth = true;
  const float* data;  // [height * width, stride] of the frame
  int depth;
  int stride;
  int grid_width;
  int top;
  int left;
  int rows;
  int columns;

  __device__ __forceinline__ int count() const { return rows * columns; }
  __device__ __forceinline__ int row(int i) const { return top + i / columns; }
  __device__ __forceinline__ int column(int i) const { return left + i % columns; }
  __device__ __forceinline__ int patch(int i) const { return row(i) * grid_width + column(i); }
  __device__ __forceinline__ float4 load(int i, int p) const {
    if (i >= count()) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return load_four(data + static_cast<int64_t>(patch(i)) * stride + p, depth - p, true);
  }
  // The same of another frame, with `radius` more on all sides, as far as there is a grid.
  __device__ __forceinline__ Rectangle widened(const float* frame, int radius, int height) const {
    Rectangle wide = *this;
    wide.data = frame;
    wide.top = max(0, top - radius);
    wide.left = max(0, left - radius);
    wide.rows = min(height, top + rows + radius) - wide.top;
    wide.columns = min(grid_width, left + columns + radius) - wide.left;
    return wide;
  }
};

struct NearestShared {
  float cosines[Tile::kRows][Tile::kCols + 1];
  IndexedValue nearest[Tile::kRows][kMostKept];  // descending, 0 where there are fewer
};

// Puts x where it belongs in a descending list, whose last entry it exceeds; the whole warp calls it.
__device__ __forceinline__ void insert(IndexedValue* list, int topk, IndexedValue x) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  IndexedValue moved[kMostKept / kWarp];
#pragma unroll
  for (int s = 0; s < kMostKept / kWarp; ++s) {
    const int j = lane + s * kWarp;
    if (j >= topk) continue;
    const IndexedValue before = j == 0 ? x : list[j - 1];
    moved[s] = x > list[j] ? min(x, before) : list[j];
  }
  __syncwarp();
#pragma unroll
  for (int s = 0; s < kMostKept / kWarp; ++s) {
    const int j = lane + s * kWarp;
    if (j < topk) list[j] = moved[s];
  }
  __syncwarp();
}

// Takes the entries of one warp's lanes into a list, of which only the largest find room.
__device__ __forceinline__ void take_in(IndexedValue* list, int topk, IndexedValue candidate) {
  for (;;) {
    const IndexedValue best = reduce_warp(candidate, Max());
    if (best <= list[topk - 1]) return;
    insert(list, topk, best);
    if (candidate == best) candidate = 0;
  }
}

// One block: the queries of a tile of kTileRows x kTileColumns patches, and one frame. Shared memory: slices
// of the factors; cosines of one tile of the product, and the lists.
__global__ void __launch_bounds__(kThreads) nearest_kernel(const float* features, const float* memory, int d,
                                                           int stride, Geometry grid, IndexedValue* lists) {
  static_assert(Tile::kThreads == kThreads && Tile::kRows == kTileRows * kTileColumns &&
                Tile::kCols == kWarp);
  auto& shared = shared_memory<NearestShared>();
  const int64_t item = blockIdx.y;
  const int frame = static_cast<int>(blockIdx.x) % grid.frames;
  const int tile = static_cast<int>(blockIdx.x) / grid.frames;
  const int top = tile / grid.tiles_across() * kTileRows;
  const int left = tile % grid.tiles_across() * kTileColumns;
  const int64_t nodes = grid.nodes();
  const Rectangle queries{features + item * nodes * stride,
                          d,
                          stride,
                          grid.width,
                          top,
                          left,
                          min(kTileRows, grid.height - top),
                          min(kTileColumns, grid.width - left)};
  const Rectangle keys =
      queries.widened(memory + (item * grid.slots + frame) * nodes * stride, grid.radius, grid.height);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int e = static_cast<int>(threadIdx.x); e < Tile::kRows * kMostKept; e += kThreads) {
    shared.nearest[e / kMostKept][e % kMostKept] = 0;
  }
  for (int first = 0; first < keys.count(); first += Tile::kCols) {
    float total[Tile::kThreadRows][Tile::kThreadCols];
    multiply_tile<Tile>(queries, keys, 0, first, total);
#pragma unroll
    for (int i = 0; i < Tile::kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kThreadCols; ++j) {
        shared.cosines[Tile::thread_row() + i][Tile::thread_col() + j] = total[i][j];
      }
    }
    __syncthreads();
    const int key = first + lane;
    const int row = keys.row(key);
    const int column = keys.column(key);
    for (int query = warp; query < queries.count(); query += kWarps) {
      const bool near = key < keys.count() && abs(row - queries.row(query)) <= grid.radius &&
                        abs(column - queries.column(query)) <= grid.radius;
      const int place = frame * grid.nodes() + row * grid.width + column;
      take_in(shared.nearest[query], grid.topk, near ? indexed(shared.cosines[query][lane], place) : 0);
    }
    __syncthreads();
  }
  for (int query = warp; query < queries.count(); query += kWarps) {
    IndexedValue* list = lists + ((item * nodes + queries.patch(query)) * grid.frames + frame) * grid.topk;
    for (int j = lane; j < grid.topk; j += kWarp) list[j] = shared.nearest[query][j];
  }
}

struct BlendShared {
  IndexedValue nearest[kWarps][kMostKept];
  float shares[kWarps][kMostKept];
};

// The topk largest of a node's lists, 0 where there are fewer; the whole warp calls it.
__device__ __forceinline__ void merge(const IndexedValue* lists, int count, int topk, IndexedValue* nearest) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  IndexedValue last = ~IndexedValue{0};
  for (int j = 0; j < topk; ++j) {
    IndexedValue best = 0;
    for (int e = lane; e < count; e += kWarp) {
      if (lists[e] < last) best = max(best, lists[e]);
    }
    last = reduce_warp(best, Max());
    if (lane == 0) nearest[j] = last;
  }
  __syncwarp();
}

// One warp: one row of the result. Shared memory: what it takes from, and how much.
__global__ void __launch_bounds__(kThreads)
    blend_kernel(const IndexedValue* lists, const float* values, int64_t rows, int c, float temperature,
                 Geometry grid, float* out) {
  auto& shared = shared_memory<BlendShared>();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (row >= rows) return;
  const int count = grid.frames * grid.topk;
  IndexedValue* nearest = shared.nearest[warp];
  float* shares = shared.shares[warp];
  merge(lists + row * count, count, grid.topk, nearest);
  const float largest = float_of(nearest[0]);
  float sum = 0.0f;
  for (int j = lane; j < grid.topk; j += kWarp) {
    shares[j] = nearest[j] == 0 ? 0.0f : expf((float_of(nearest[j]) - largest) / temperature);
    sum += shares[j];
  }
  const float scale = 1.0f / reduce_warp(sum, Sum());
  __syncwarp();
  const float* of_item = values + row / grid.nodes() * grid.slots * grid.nodes() * c;
  for (int i = lane; i < c; i += kWarp) {
    float total = 0.0f;
    for (int j = 0; j < grid.topk && nearest[j] != 0; ++j) {
      total += shares[j] * scale * of_item[static_cast<int64_t>(index_of(nearest[j])) * c + i];
    }
    out[row * c + i] = fminf(fmaxf(total, -FLT_MAX), FLT_MAX);
  }
}

}  // namespace

void propagate_cuda(const void* features, int32_t dtype, const void* memory, int32_t memory_dtype,
                    const float* values, int64_t batch, const MemoryShape& shape,
                    const patchcut_propagate_params& params, float* out, CudaQueue& queue) {
  const int64_t rows = batch * shape.nodes();
  if (rows == 0 || shape.c == 0) return;
  const int64_t radius = min(params.radius, max(shape.height, shape.width));
  const Geometry grid{static_cast<int>(shape.frames), static_cast<int>(shape.slots),
                      static_cast<int>(shape.height), static_cast<int>(shape.width),
                      static_cast<int>(radius),       static_cast<int>(params.topk)};
  const UnitRows queries = unit_rows(features, dtype, rows, shape.d, true, queue);
  // Slots without a frame are normalised too, and looked at by nobody.
  const UnitRows keys = unit_rows(memory, memory_dtype, rows * shape.slots, shape.d, true, queue);
  IndexedValue* lists = queue.take<IndexedValue>(rows * shape.frames * params.topk);
  launch(queue, nearest_kernel,
         dim3(static_cast<unsigned>(grid.tiles() * grid.frames), static_cast<unsigned>(batch)), kThreads,
         queries.data, keys.data, static_cast<int>(shape.d), static_cast<int>(queries.stride), grid, lists);
  launch(queue, blend_kernel, static_cast<unsigned>(ceil_div<int64_t>(rows, kWarps)), kThreads, lists, values,
         rows, static_cast<int>(shape.c), params.temperature, grid, out);
}

}  // namespace patchcut
