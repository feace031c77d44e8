// One kernel; one thread: one pixel.
#include "cuda/launch.cuh"
#include "masks/relabel.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    relabel_kernel(const int32_t* labels, int64_t size, const int32_t* table, int64_t count, int32_t* out) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= size) return;
  const int32_t label = labels[at];
  out[at] = label >= 0 && label < count ? table[label] : 0;
}

}  // namespace

void relabel_cuda(const int32_t* labels, int64_t size, const int32_t* table, int64_t count, int32_t* out,
                  CudaQueue& queue) {
  launch(queue, relabel_kernel, static_cast<unsigned>(ceil_div<int64_t>(size, kThreads)), kThreads, labels,
         size, table, count, out);
}

}  // namespace patchcut
