// The guide and each map are first seen as the filter sees them: one of step x step pixels. Then three
// kernels a map: coefficients of each window, their averages over windows, and the result at every pixel of
// the frame. In the first two a block has the sums of the columns of its windows in shared memory, moves them
// down row by row, and each thread adds up the columns around its own. Label maps have one map a label, one
// after the other; the indicator of the last label is what the others leave of 1.
#include <cfloat>

#include "cuda/launch.cuh"
#include "refine/guided_refine.h"
#include "refine/guided_window.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 128;     // of a tile of windows, one a thread
constexpr int kRows = 16;         // of it
constexpr int kSharedReach = 64;  // of windows whose sums of columns fit shared memory
constexpr int kMoments = 13;      // I, the upper triangle of I I^T, p I, p

// Pixels of the frame, and what the filter sees of them.
struct View {
  int height;
  int width;
  int step;
  int rows;
  int columns;
  GuidedWindow window;

  __host__ __device__ int64_t pixels() const { return static_cast<int64_t>(height) * width; }
  __host__ __device__ int64_t cells() const { return static_cast<int64_t>(rows) * columns; }
  __host__ __device__ int64_t tile_columns() const { return ceil_div<int64_t>(columns, kColumns); }
  __host__ __device__ int64_t tiles() const { return ceil_div<int64_t>(rows, kRows) * tile_columns(); }
  // Whose sums a tile takes.
  __host__ __device__ int columns_around() const { return kColumns + 2 * static_cast<int>(window.reach); }
};

// The middle of each block of pixels.
__global__ void __launch_bounds__(kThreads)
    see_guide_kernel(View view, const uint8_t* frames, uchar4* guide) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= view.cells()) return;
  const int64_t row = at / view.columns;
  const int64_t column = at - row * view.columns;
  const int64_t y = min(row * view.step + view.step / 2, static_cast<int64_t>(view.height - 1));
  const int64_t x = min(column * view.step + view.step / 2, static_cast<int64_t>(view.width - 1));
  const uint8_t* pixel = frames + (blockIdx.y * view.pixels() + y * view.width + x) * 3;
  guide[blockIdx.y * view.cells() + at] = make_uchar4(pixel[0], pixel[1], pixel[2], 0);
}

struct SoftMap {
  const float* maps;  // first pixel of the first item's map
  int64_t stride;     // from item to item

  __device__ __forceinline__ float value(int64_t item, int64_t pixel) const {
    return maps[item * stride + pixel];
  }
};

struct Indicator {
  const int32_t* labels;
  int64_t stride;
  int32_t label;

  __device__ __forceinline__ float value(int64_t item, int64_t pixel) const {
    return labels[item * stride + pixel] == label ? 1.0f : 0.0f;
  }
};

// The mean over each block of pixels, of which the last ones may lie outside.
template <class Map>
__global__ void __launch_bounds__(kThreads) see_map_kernel(View view, Map map, float* seen) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= view.cells()) return;
  const int64_t row = at / view.columns;
  const int64_t top = row * view.step;
  const int64_t left = (at - row * view.columns) * view.step;
  const int rows = static_cast<int>(min(static_cast<int64_t>(view.step), view.height - top));
  const int columns = static_cast<int>(min(static_cast<int64_t>(view.step), view.width - left));
  float total = 0.0f;
  for (int y = 0; y < rows; ++y) {
    const int64_t first = (top + y) * view.width + left;
    for (int x = 0; x < columns; ++x) total += map.value(blockIdx.y, first + x);
  }
  seen[blockIdx.y * view.cells() + at] = total / static_cast<float>(rows * columns);
}

// kColumns x kRows windows, of one block.
struct Tile {
  int64_t first_row;
  int64_t end_row;
  int64_t first_column;

  __device__ explicit Tile(const View& view)
      : first_row(static_cast<int64_t>(blockIdx.x) / view.tile_columns() * kRows),
        end_row(min(first_row + kRows, static_cast<int64_t>(view.rows))),
        first_column(static_cast<int64_t>(blockIdx.x) % view.tile_columns() * kColumns) {}

  __device__ int64_t column() const { return first_column + threadIdx.x; }
};

// Calls visit(column, among columns_around(), and of the view) for the columns whose sums the thread keeps.
template <class Visit>
__device__ __forceinline__ void for_columns(const View& view, const Tile& tile, const Visit& visit) {
  for (int c = static_cast<int>(threadIdx.x); c < view.columns_around(); c += kColumns) {
    visit(c, reflect_index(tile.first_column + c - view.window.reach, view.columns));
  }
}

// Calls visit(row, weight) for the rows by which the window around `row` differs from the one around row - 1,
// or for all of its rows.
template <class Visit>
__device__ __forceinline__ void move_rows(const View& view, int64_t row, bool start, const Visit& visit) {
  const GuidedWindow& w = view.window;
  const auto at = [&](int64_t i) { return reflect_index(row + i, view.rows); };
  if (start) {
    for (int64_t i = -w.inner; i <= w.inner; ++i) visit(at(i), 1.0f);
    if (w.edge == 0.0f) return;
    visit(at(-w.reach), w.edge);
    visit(at(w.reach), w.edge);
    return;
  }
  visit(at(w.inner), 1.0f - w.edge);
  visit(at(-w.reach), w.edge - 1.0f);
  if (w.edge == 0.0f) return;
  visit(at(w.reach), w.edge);
  visit(at(-w.reach - 1), -w.edge);
}

template <class T, int planes>
struct ColumnSumsShared {
  T sums[planes * (kColumns + 2 * kSharedReach)];
};

// [planes, columns_around()] of the calling block: in shared memory, or for wide windows in `wide_sums`.
template <class T, int planes, bool wide>
__device__ __forceinline__ T* column_sums(const View& view, T* wide_sums) {
  if constexpr (wide) {
    const int64_t block = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    return wide_sums + block * planes * view.columns_around();
  } else {
    return shared_memory<ColumnSumsShared<T, planes>>().sums;
  }
}

// The means over the window around the calling thread's column, from sums of columns.
template <class T, int planes>
__device__ __forceinline__ void window_means(const View& view, const T* sums, T (&means)[planes]) {
  const int last = 2 * static_cast<int>(view.window.reach);
  const int stride = view.columns_around();
  sums += threadIdx.x;
#pragma unroll
  for (int i = 0; i < planes; ++i) means[i] = (sums[i * stride] + sums[i * stride + last]) * view.window.edge;
  for (int c = 1; c < last; ++c) {
#pragma unroll
    for (int i = 0; i < planes; ++i) means[i] = means[i] + sums[i * stride + c];
  }
#pragma unroll
  for (int i = 0; i < planes; ++i) means[i] = means[i] * view.window.scale;
}

// a of each color, and b.
struct Four {
  float4 v;

  __device__ __forceinline__ Four operator+(const Four& other) const {
    return {make_float4(v.x + other.v.x, v.y + other.v.y, v.z + other.v.z, v.w + other.v.w)};
  }
  __device__ __forceinline__ Four operator*(float factor) const {
    return {make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor)};
  }
};

__device__ __forceinline__ void add_moments(const uchar4& pixel, float p, float weight,
                                            float (&sums)[kMoments]) {
  const float color[3] = {static_cast<float>(pixel.x) - 128.0f, static_cast<float>(pixel.y) - 128.0f,
                          static_cast<float>(pixel.z) - 128.0f};
  int at = 0;
#pragma unroll
  for (int i = 0; i < 3; ++i) sums[at++] += weight * color[i];
#pragma unroll
  for (int i = 0; i < 3; ++i) {
#pragma unroll
    for (int j = i; j < 3; ++j) sums[at++] += weight * (color[i] * color[j]);
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) sums[at++] += weight * (color[i] * p);
  sums[at] += weight * p;
}

// a and b of the ridge regression of p on I, from means over a window.
__device__ Four solve(const float (&mean)[kMoments], float eps) {
  const float s00 = mean[3] - mean[0] * mean[0] + eps;
  const float s01 = mean[4] - mean[0] * mean[1];
  const float s02 = mean[5] - mean[0] * mean[2];
  const float s11 = mean[6] - mean[1] * mean[1] + eps;
  const float s12 = mean[7] - mean[1] * mean[2];
  const float s22 = mean[8] - mean[2] * mean[2] + eps;
  // L D L^T; rounding may take a pivot below eps, which it never is.
  const float d0 = 1.0f / fmaxf(s00, eps);
  const float l10 = s01 * d0;
  const float l20 = s02 * d0;
  const float d1 = 1.0f / fmaxf(s11 - l10 * s01, eps);
  const float t = s12 - l10 * s02;
  const float l21 = t * d1;
  const float d2 = 1.0f / fmaxf(s22 - l20 * s02 - l21 * t, eps);
  const float y0 = mean[9] - mean[0] * mean[12];
  const float y1 = mean[10] - mean[1] * mean[12] - l10 * y0;
  const float y2 = mean[11] - mean[2] * mean[12] - l20 * y0 - l21 * y1;
  const float a2 = y2 * d2;
  const float a1 = y1 * d1 - l21 * a2;
  const float a0 = y0 * d0 - l10 * a1 - l20 * a2;
  return {make_float4(a0, a1, a2, mean[12] - a0 * mean[0] - a1 * mean[1] - a2 * mean[2])};
}

// Moves a tile's sums of columns to a row; returns whether the map's are other than 0 anywhere.
__device__ bool move_moments(const View& view, const Tile& tile, int64_t row, const uchar4* guide,
                             const float* map, float* kept) {
  const int stride = view.columns_around();
  const bool start = row == tile.first_row;
  bool any = false;
  for_columns(view, tile, [&](int c, int64_t x) {
    float sums[kMoments];
#pragma unroll
    for (int i = 0; i < kMoments; ++i) sums[i] = start ? 0.0f : kept[i * stride + c];
    move_rows(view, row, start, [&](int64_t y, float weight) {
      add_moments(guide[y * view.columns + x], map[y * view.columns + x], weight, sums);
    });
#pragma unroll
    for (int i = 0; i < kMoments; ++i) kept[i * stride + c] = sums[i];
    for (int i = kMoments - 4; i < kMoments; ++i) any = any || sums[i] != 0.0f;
  });
  return any;
}

// One block: the coefficients of a tile. Where the map's sums are all 0, so are these.
template <bool wide>
__global__ void __launch_bounds__(kColumns)
    solve_kernel(View view, float eps, const uchar4* guide, const float* map, float* wide_sums,
                 Four* coefficients) {
  const Tile tile(view);
  float* kept = column_sums<float, kMoments, wide>(view, wide_sums);
  const int64_t first = blockIdx.y * view.cells();
  for (int64_t row = tile.first_row; row < tile.end_row; ++row) {
    const bool any = __syncthreads_or(move_moments(view, tile, row, guide + first, map + first, kept)) != 0;
    if (tile.column() < view.columns) {
      Four solved{make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
      if (any) {
        float mean[kMoments];
        window_means(view, kept, mean);
        solved = solve(mean, eps);
      }
      coefficients[first + row * view.columns + tile.column()] = solved;
    }
    __syncthreads();  // the sums are read until here
  }
}

// One block: the averages of a tile.
template <bool wide>
__global__ void __launch_bounds__(kColumns)
    average_kernel(View view, const Four* coefficients, Four* wide_sums, Four* averages) {
  const Tile tile(view);
  Four* kept = column_sums<Four, 1, wide>(view, wide_sums);
  const int64_t first = blockIdx.y * view.cells();
  for (int64_t row = tile.first_row; row < tile.end_row; ++row) {
    const bool start = row == tile.first_row;
    for_columns(view, tile, [&](int c, int64_t x) {
      Four sum = start ? Four{make_float4(0.0f, 0.0f, 0.0f, 0.0f)} : kept[c];
      move_rows(view, row, start, [&](int64_t y, float weight) {
        sum = sum + coefficients[first + y * view.columns + x] * weight;
      });
      kept[c] = sum;
    });
    __syncthreads();
    if (tile.column() < view.columns) {
      Four mean[1];
      window_means(view, kept, mean);
      averages[first + row * view.columns + tile.column()] = mean[0];
    }
    __syncthreads();  // the sums are read until here
  }
}

// Between which rows or columns of the filter a pixel lies.
struct Position {
  int low;
  int high;
  float fraction;
};

__device__ __forceinline__ Position position_of(int pixel, int step, int size) {
  int low = pixel / step;
  int twice = 2 * (pixel - low * step) - (step - 1);  // of the distance to the middle of that block
  if (twice < 0) {
    --low;
    twice += 2 * step;
  }
  const float fraction = static_cast<float>(twice) / static_cast<float>(2 * step);
  return {max(low, 0), min(low + 1, size - 1), fraction};
}

// a I + b at one pixel of the frame.
__device__ float refined(const View& view, const uint8_t* pixel, const Four* averages, int y, int x) {
  const Position down = position_of(y, view.step, view.rows);
  const Position across = position_of(x, view.step, view.columns);
  const auto row = [&](int at) {
    const Four* line = averages + static_cast<int64_t>(at) * view.columns;
    return line[across.low] * (1.0f - across.fraction) + line[across.high] * across.fraction;
  };
  const float4 mean = (row(down.low) * (1.0f - down.fraction) + row(down.high) * down.fraction).v;
  return mean.x * (static_cast<float>(pixel[0]) - 128.0f) + mean.y * (static_cast<float>(pixel[1]) - 128.0f) +
         mean.z * (static_cast<float>(pixel[2]) - 128.0f) + mean.w;
}

struct KeepValue {
  float* out;      // first pixel of the first item's map
  int64_t stride;  // from item to item

  __device__ __forceinline__ void keep(int64_t item, int64_t pixel, float value) const {
    out[item * stride + pixel] = value;
  }
};

// The largest so far, and what all so far leave of 1, which is that of the last label.
struct KeepLargest {
  int32_t label;
  int32_t last_label;
  float* best;      // [batch, pixels]
  float* rest;      // [batch, pixels]
  int32_t* labels;  // [batch, pixels]
  int64_t stride;   // pixels

  __device__ __forceinline__ void keep(int64_t item, int64_t pixel, float value) const {
    const int64_t at = item * stride + pixel;
    const float others = label == 0 ? 1.0f : rest[at];
    float largest = label == 0 ? -FLT_MAX : best[at];
    if (value > largest) {
      largest = value;
      labels[at] = label;
    }
    best[at] = largest;
    rest[at] = others - value;
    if (label + 1 == last_label && others - value > largest) labels[at] = last_label;
  }
};

template <class Keep>
__global__ void __launch_bounds__(kThreads)
    apply_kernel(View view, const uint8_t* frames, const Four* averages, Keep keep) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= view.pixels()) return;
  const int64_t item = blockIdx.y;
  const int y = static_cast<int>(at / view.width);
  const int x = static_cast<int>(at - static_cast<int64_t>(y) * view.width);
  const uint8_t* pixel = frames + (item * view.pixels() + at) * 3;
  keep.keep(item, at, refined(view, pixel, averages + item * view.cells(), y, x));
}

struct Job {
  View view;
  float eps;  // of values of 0 to 255
  int64_t batch;
  const uint8_t* frames;
  uchar4* guide;       // [batch, rows, columns]
  float* map;          // [batch, rows, columns]
  Four* coefficients;  // [batch, rows, columns]
  Four* averages;      // [batch, rows, columns]
  float* wide_sums;    // [batch, tiles, kMoments, columns around], null where they fit shared memory

  dim3 grid(int64_t threads) const {
    return dim3(static_cast<unsigned>(ceil_div<int64_t>(threads, kThreads)), static_cast<unsigned>(batch));
  }
  dim3 tile_grid() const { return dim3(static_cast<unsigned>(view.tiles()), static_cast<unsigned>(batch)); }
  bool wide() const { return view.window.reach > kSharedReach; }
};

View make_view(int64_t height, int64_t width, const patchcut_guided_refine_params& params) {
  const int64_t step = params.subsample;
  return {static_cast<int>(height),
          static_cast<int>(width),
          static_cast<int>(step),
          static_cast<int>(ceil_div(height, step)),
          static_cast<int>(ceil_div(width, step)),
          make_guided_window(params.radius, step)};
}

Job make_job(const uint8_t* frames, int64_t batch, int64_t height, int64_t width,
             const patchcut_guided_refine_params& params, CudaQueue& queue) {
  const View view = make_view(height, width, params);
  const int64_t cells = batch * view.cells();
  Job job{view,
          params.eps * 255.0f * 255.0f,
          batch,
          frames,
          queue.take<uchar4>(cells),
          queue.take<float>(cells),
          queue.take<Four>(cells),
          queue.take<Four>(cells),
          nullptr};
  if (job.wide()) job.wide_sums = queue.take<float>(batch * view.tiles() * kMoments * view.columns_around());
  launch(queue, see_guide_kernel, job.grid(view.cells()), kThreads, view, frames, job.guide);
  return job;
}

template <class Map, class Keep>
void refine(const Job& job, const Map& map, const Keep& keep, CudaQueue& queue) {
  const bool wide = job.wide();
  launch(queue, see_map_kernel<Map>, job.grid(job.view.cells()), kThreads, job.view, map, job.map);
  launch(queue, wide ? solve_kernel<true> : solve_kernel<false>, job.tile_grid(), kColumns, job.view, job.eps,
         job.guide, job.map, job.wide_sums, job.coefficients);
  // The moments are done with, and take more room.
  launch(queue, wide ? average_kernel<true> : average_kernel<false>, job.tile_grid(), kColumns, job.view,
         job.coefficients, reinterpret_cast<Four*>(job.wide_sums), job.averages);
  launch(queue, apply_kernel<Keep>, job.grid(job.view.pixels()), kThreads, job.view, job.frames, job.averages,
         keep);
}

}  // namespace

void guided_refine_cuda(const uint8_t* frames, const float* maps, int64_t batch, int64_t k, int64_t height,
                        int64_t width, const patchcut_guided_refine_params& params, float* out,
                        CudaQueue& queue) {
  const int64_t pixels = height * width;
  if (batch * k * pixels == 0) return;
  const Job job = make_job(frames, batch, height, width, params, queue);
  if (queue.only_counts()) return;
  for (int64_t i = 0; i < k; ++i) {
    refine(job, SoftMap{maps + i * pixels, k * pixels}, KeepValue{out + i * pixels, k * pixels}, queue);
  }
}

void guided_refine_labels_cuda(const uint8_t* frames, const int32_t* label_maps, int64_t batch,
                               int64_t height, int64_t width, int64_t count,
                               const patchcut_guided_refine_params& params, int32_t* out, CudaQueue& queue) {
  const int64_t pixels = height * width;
  if (batch * pixels == 0) return;
  if (count == 1) return queue.clear(out, batch * pixels);
  const Job job = make_job(frames, batch, height, width, params, queue);
  float* best = queue.take<float>(batch * pixels);
  float* rest = queue.take<float>(batch * pixels);
  if (queue.only_counts()) return;
  const int32_t last = static_cast<int32_t>(count - 1);
  for (int32_t label = 0; label < last; ++label) {
    refine(job, Indicator{label_maps, pixels, label}, KeepLargest{label, last, best, rest, out, pixels},
           queue);
  }
}

}  // namespace patchcut
