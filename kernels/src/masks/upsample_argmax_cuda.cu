// One kernel. A block fills a rectangle of the label map; each thread interpolates all classes of its pixels
// between four rows of the assignment, which stay in the first-level cache, and keeps the largest.
#include "cuda/launch.cuh"
#include "cuda/resampling.cuh"
#include "masks/upsample_argmax.h"

namespace patchcut {
namespace {

constexpr int kBlockWidth = 64;
constexpr int kBlockRows = 4;
constexpr int kThreads = kBlockWidth * kBlockRows;
constexpr int kPixels = 4;  // of a thread, one below the other
constexpr int kBlockHeight = kBlockRows * kPixels;

struct Extents {
  int grid_height;
  int grid_width;
  int k;
  int height;
  int width;
};

struct Shared {
  LinearPosition rows[kBlockHeight];
  LinearPosition columns[kBlockWidth];
};

__device__ void find_positions(const Extents& extents, int first_row, int first_column, Shared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kBlockWidth) {
    shared.columns[thread] = linear_position(first_column + thread, extents.grid_width, extents.width);
  } else if (thread < kBlockWidth + kBlockHeight) {
    const int row = thread - kBlockWidth;
    shared.rows[row] = linear_position(first_row + row, extents.grid_height, extents.height);
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    upsample_argmax_kernel(const float* assignment, Extents extents, int32_t* labels, float* confidence) {
  auto& shared = shared_memory<Shared>();
  const int first_row = static_cast<int>(blockIdx.y) * kBlockHeight;
  const int first_column = static_cast<int>(blockIdx.x) * kBlockWidth;
  find_positions(extents, first_row, first_column, shared);
  const int64_t item = blockIdx.z;
  const float* grid = assignment + item * extents.grid_height * extents.grid_width * extents.k;
  const int column = static_cast<int>(threadIdx.x) % kBlockWidth;
  const int x = first_column + column;
  const LinearPosition across = shared.columns[column];
  for (int i = 0; i < kPixels; ++i) {
    const int row = static_cast<int>(threadIdx.x) / kBlockWidth + i * kBlockRows;
    const int y = first_row + row;
    if (x >= extents.width || y >= extents.height) continue;
    const LinearPosition down = shared.rows[row];
    const float* upper = grid + static_cast<int64_t>(down.low) * extents.grid_width * extents.k;
    const float* lower = grid + static_cast<int64_t>(down.high) * extents.grid_width * extents.k;
    const int left = across.low * extents.k;
    const int right = across.high * extents.k;
    float best = 0.0f;
    int label = 0;
    for (int c = 0; c < extents.k; ++c) {
      const float at_left = upper[left + c] + down.fraction * (lower[left + c] - upper[left + c]);
      const float at_right = upper[right + c] + down.fraction * (lower[right + c] - upper[right + c]);
      const float value = at_left + across.fraction * (at_right - at_left);
      if (c == 0 || value > best) {
        best = value;
        label = c;
      }
    }
    const int64_t at = (item * extents.height + y) * extents.width + x;
    labels[at] = label;
    if (confidence != nullptr) confidence[at] = best;
  }
}

}  // namespace

void upsample_argmax_cuda(const float* assignment, int64_t batch, int64_t grid_height, int64_t grid_width,
                          int64_t k, int64_t height, int64_t width, int32_t* labels, float* confidence,
                          CudaQueue& queue) {
  const Extents extents{static_cast<int>(grid_height), static_cast<int>(grid_width), static_cast<int>(k),
                        static_cast<int>(height), static_cast<int>(width)};
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(width, kBlockWidth)),
                  static_cast<unsigned>(ceil_div<int64_t>(height, kBlockHeight)),
                  static_cast<unsigned>(batch));
  launch(queue, upsample_argmax_kernel, grid, kThreads, assignment, extents, labels, confidence);
}

}  // namespace patchcut
