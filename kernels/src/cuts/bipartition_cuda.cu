// The first vector of ncut_cuda is split at its mean (split_kernel); connected_components_cuda joins what is
// on the seed's side, and keep_kernel keeps the seed's component.
#include "cuda/arg_largest.cuh"
#include "cuda/launch.cuh"
#include "cuts/bipartition.h"
#include "cuts/ncut.h"
#include "masks/connected_components.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;

// One block an item: sides[i] is 1 where the vector is on its seed's side of the mean.
__global__ void __launch_bounds__(kThreads)
    split_kernel(const float* vectors, int n, int32_t* seeds, int32_t* sides) {
  const int64_t item = blockIdx.y;
  const float* vector = vectors + item * n;
  IndexedValue largest = indexed(vector[0], 0);  // the entry of largest magnitude is positive
  double total = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    largest = max(largest, indexed(vector[i], i));
    total += static_cast<double>(vector[i]);
  }
  const int seed = index_of(reduce_block<kThreads>(largest, Max()));
  const double mean = reduce_block<kThreads>(total, Sum()) / n;
  const bool above = static_cast<double>(vector[seed]) > mean;  // unless the vector is constant
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    sides[item * n + i] = (static_cast<double>(vector[i]) > mean) == above ? 1 : 0;
  }
  if (threadIdx.x == 0) seeds[item] = seed;
}

// ids are those of the sides' components, or the sides themselves.
__global__ void __launch_bounds__(kThreads)
    keep_kernel(const int32_t* ids, const int32_t* seeds, int n, uint8_t* masks) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= n) return;
  const int64_t item = blockIdx.y;
  masks[item * n + i] = ids[item * n + i] == ids[item * n + seeds[item]] ? 1 : 0;
}

}  // namespace

void bipartition_cuda(const void* features, int32_t dtype, int64_t batch, int64_t height, int64_t width,
                      int64_t d, const float* start, const patchcut_ncut_params& params, bool connected,
                      uint8_t* masks, int32_t* seeds, float* vectors, CudaQueue& queue) {
  if (batch == 0) return;
  const int64_t n = height * width;
  if (vectors == nullptr) vectors = queue.take<float>(batch * n);
  float* eigenvalues = queue.take<float>(batch);
  float* residuals = queue.take<float>(batch);
  int32_t* sides = queue.take<int32_t>(batch * n);
  ncut_cuda(features, dtype, batch, n, d, 1, start, params, eigenvalues, vectors, residuals, nullptr, queue);
  const unsigned items = static_cast<unsigned>(batch);
  launch(queue, split_kernel, dim3(1, items), kThreads, vectors, static_cast<int>(n), seeds, sides);
  if (connected) {
    int32_t* counts = queue.take<int32_t>(batch);
    connected_components_cuda(sides, batch, height, width, false, 1, sides, nullptr, counts, queue);
  }
  launch(queue, keep_kernel, dim3(static_cast<unsigned>(ceil_div<int64_t>(n, kThreads)), items), kThreads,
         sides, seeds, static_cast<int>(n), masks);
}

}  // namespace patchcut
