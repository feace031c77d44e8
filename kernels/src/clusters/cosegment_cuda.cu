// Five kernels. Rows are normalised, one warp a row, and the image of each is looked up. Then each block
// multiplies one tile of the upper triangle of all patches, and raises with it the maxima of its rows and, as
// its mirror image, of its columns; those of one image follow each other, so that there are few to raise. The
// last kernels take the mean of the maxima, the best patch of each image and the mean of these.
#include "clusters/cosegment.h"
#include "cuda/arg_largest.cuh"
#include "cuda/gemm.cuh"
#include "cuda/launch.cuh"
#include "cuda/unit_rows.cuh"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostTiles = 65535;  // along a side of the products
using Tile = GemmTile<4, 4>;

struct Images {
  const int64_t* offsets;  // [k + 1], or null
  const float* weights;    // [n], or null
  int n;
  int k;

  // The first patch of an image, whatever the offsets are.
  __device__ __forceinline__ int first(int image) const {
    if (offsets == nullptr) return image * (n / k);
    return static_cast<int>(max(static_cast<int64_t>(0), min(offsets[image], static_cast<int64_t>(n))));
  }
  __device__ __forceinline__ float weight(int patch) const {
    return weights == nullptr ? 1.0f : weights[patch];
  }
  // The last image that starts at or before a patch.
  __device__ int image_of(int patch) const {
    int low = 0;
    int high = k;
    while (high - low > 1) {
      const int middle = low + (high - low) / 2;
      (first(middle) <= patch ? low : high) = middle;
    }
    return low;
  }
};

// One thread: the image of one patch, -1 of a patch that does not count.
__global__ void __launch_bounds__(kThreads) image_kernel(Images images, int* image_of) {
  const int patch = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (patch < images.n) image_of[patch] = images.weight(patch) > 0.0f ? images.image_of(patch) : -1;
}

// The largest of such numbers is that of the largest value; none is 0 but NaN.
__device__ __forceinline__ unsigned ordered(float value) {
  return static_cast<unsigned>(indexed(value, 0) >> 32);
}
__device__ __forceinline__ float value_of(unsigned x) { return float_of(static_cast<IndexedValue>(x) << 32); }

struct MaximaShared {
  float products[Tile::kRows][Tile::kCols + 1];
  int image_of[2][Tile::kRows];  // of the rows, of the columns; -1 where there is none
  float weights[2][Tile::kRows];
};

// Raises the maxima of one patch in the images of Tile::kRows others, whose products are given by get(other).
template <class Get>
__device__ __forceinline__ void raise_maxima(const int* image_of, const float* weights, const Get& get,
                                             unsigned* maxima) {
  int image = -1;
  unsigned largest = 0;
  for (int other = 0; other < Tile::kRows; ++other) {
    if (image_of[other] < 0) continue;
    if (image_of[other] != image) {
      if (largest != 0) atomicMax(maxima + image, largest);
      image = image_of[other];
      largest = 0;
    }
    largest = max(largest, ordered(get(other) * weights[other]));
  }
  if (largest != 0) atomicMax(maxima + image, largest);
}

// One block: tile (x, y) of the products of all patches; nothing below the diagonal. Shared memory: slices of
// the factors, then the tile.
__global__ void __launch_bounds__(kThreads)
    maxima_kernel(RowMajor<float> rows, Images images, const int* image_of, unsigned* maxima) {
  static_assert(Tile::kThreads == kThreads && Tile::kRows == Tile::kCols && 2 * Tile::kRows <= kThreads);
  const int first_row = static_cast<int>(blockIdx.y) * Tile::kRows;
  const int first_col = static_cast<int>(blockIdx.x) * Tile::kCols;
  if (blockIdx.y > blockIdx.x) return;
  float total[Tile::kThreadRows][Tile::kThreadCols];
  multiply_tile<Tile>(rows, rows, first_row, first_col, total);
  auto& shared = shared_memory<MaximaShared>();
#pragma unroll
  for (int i = 0; i < Tile::kThreadRows; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kThreadCols; ++j) {
      shared.products[Tile::thread_row() + i][Tile::thread_col() + j] = total[i][j];
    }
  }
  const int side = static_cast<int>(threadIdx.x) / Tile::kRows;
  const int own = static_cast<int>(threadIdx.x) % Tile::kRows;
  const int patch = (side == 0 ? first_row : first_col) + own;
  if (side < 2) {
    const bool inside = patch < images.n;
    shared.image_of[side][own] = inside ? image_of[patch] : -1;
    shared.weights[side][own] = inside ? images.weight(patch) : 0.0f;
  }
  __syncthreads();
  if (side >= 2 || shared.image_of[side][own] < 0 || (side == 1 && blockIdx.x == blockIdx.y)) return;
  unsigned* of_patch = maxima + static_cast<int64_t>(patch) * images.k;
  if (side == 0) {
    raise_maxima(
        shared.image_of[1], shared.weights[1], [&](int other) { return shared.products[own][other]; },
        of_patch);
  } else {
    raise_maxima(
        shared.image_of[0], shared.weights[0], [&](int other) { return shared.products[other][own]; },
        of_patch);
  }
}

// One warp: the mean of one patch's maxima over the images that have patches.
__global__ void __launch_bounds__(kThreads)
    score_kernel(const unsigned* maxima, Images images, const int* image_of, float* scores) {
  const int patch = static_cast<int>(blockIdx.x) * (kThreads / kWarp) + static_cast<int>(threadIdx.x) / kWarp;
  if (patch >= images.n) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const unsigned* of_patch = maxima + static_cast<int64_t>(patch) * images.k;
  double total = 0.0;
  int count = 0;
  for (int image = lane; image < images.k; image += kWarp) {
    if (of_patch[image] == 0) continue;
    total += static_cast<double>(value_of(of_patch[image]));
    ++count;
  }
  total = reduce_warp(total, Sum());
  count = reduce_warp(count, Sum());
  if (lane == 0) scores[patch] = image_of[patch] < 0 ? -1.0f : static_cast<float>(total / count);
}

// One block: the first of the best patches of one image, -1 where none counts.
__global__ void __launch_bounds__(kThreads)
    seed_kernel(const float* scores, Images images, const int* image_of, int32_t* seeds) {
  const int image = static_cast<int>(blockIdx.x);
  const int first = images.first(image);
  IndexedValue best = 0;
  for (int i = first + static_cast<int>(threadIdx.x); i < images.first(image + 1); i += kThreads) {
    if (image_of[i] >= 0) best = max(best, indexed(scores[i], i - first));
  }
  best = reduce_block<kThreads>(best, Max());
  if (threadIdx.x == 0) seeds[image] = best == 0 ? -1 : index_of(best);
}

// One block: the direction of the mean of the seeds' unit rows.
__global__ void __launch_bounds__(kThreads)
    embedding_kernel(RowMajor<float> rows, Images images, const int32_t* seeds, double* sums,
                     float* embedding) {
  double squares = 0.0;
  for (int column = static_cast<int>(threadIdx.x); column < rows.depth; column += kThreads) {
    double sum = 0.0;
    for (int image = 0; image < images.k; ++image) {
      if (seeds[image] < 0) continue;
      sum += static_cast<double>(rows.data[(images.first(image) + seeds[image]) * rows.stride + column]);
    }
    sums[column] = sum;
    squares += sum * sum;
  }
  squares = reduce_block<kThreads>(squares, Sum());
  const double scale = squares > 0.0 ? 1.0 / sqrt(squares) : 0.0;
  for (int column = static_cast<int>(threadIdx.x); column < rows.depth; column += kThreads) {
    embedding[column] = static_cast<float>(sums[column] * scale);
  }
}

}  // namespace

void cosegment_cuda(const void* features, int32_t dtype, const ImagePatches& patches, const float* weights,
                    float* scores, int32_t* seeds, float* embedding, CudaQueue& queue) {
  const int64_t tiles = ceil_div<int64_t>(patches.n, Tile::kRows);
  require(tiles <= kMostTiles, queue.op(), "features must hold at most 4194240 patches on CUDA");
  if (patches.k == 0) return queue.clear(embedding, patches.d);
  const Images images{patches.offsets, weights, static_cast<int>(patches.n), static_cast<int>(patches.k)};
  const UnitRows unit = unit_rows(features, dtype, patches.n, patches.d, true, queue);
  const RowMajor<float> rows = row_major(unit.data, patches.n, patches.d, unit.stride);
  int* image_of = queue.take<int>(patches.n);
  unsigned* maxima = queue.take<unsigned>(patches.n * patches.k);
  queue.clear(maxima, patches.n * patches.k);
  launch(queue, image_kernel, static_cast<unsigned>(ceil_div<int64_t>(patches.n, kThreads)), kThreads, images,
         image_of);
  const unsigned side = static_cast<unsigned>(tiles);
  launch(queue, maxima_kernel, dim3(side, side), kThreads, rows, images, image_of, maxima);
  launch(queue, score_kernel, static_cast<unsigned>(ceil_div<int64_t>(patches.n, kThreads / kWarp)), kThreads,
         maxima, images, image_of, scores);
  launch(queue, seed_kernel, static_cast<unsigned>(patches.k), kThreads, scores, images, image_of, seeds);
  launch(queue, embedding_kernel, 1, kThreads, rows, images, seeds, queue.take<double>(patches.d), embedding);
}

}  // namespace patchcut
