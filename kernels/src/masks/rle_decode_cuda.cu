// Two kernels. The first adds up the runs of each item, which says where they end; in the second a thread
// looks its first pixel up among the ends, and then goes down its column and along the runs.
#include "cuda/block_scan.cuh"
#include "masks/rle_decode.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kScanThreads = 1024;
constexpr int kRows = 32;  // of a thread

struct Runs {
  const uint32_t* lengths;  // [capacity]
  const int64_t* offsets;   // [batch + 1]
  int64_t capacity;

  __device__ int64_t begin(int64_t item) const { return clamp(offsets[item]); }
  __device__ int64_t end(int64_t item) const { return clamp(offsets[item + 1]); }

 private:
  __device__ int64_t clamp(int64_t at) const { return min(max(at, int64_t{0}), capacity); }
};

// One block: one item. No end is after the last pixel.
__global__ void __launch_bounds__(kScanThreads) end_kernel(Runs runs, int64_t pixels, int* ends) {
  const int64_t end = runs.end(blockIdx.x);
  int64_t before_chunk = 0;
  for (int64_t first = runs.begin(blockIdx.x); first < end; first += kScanThreads) {
    const int64_t at = first + threadIdx.x;
    const int64_t own = at < end ? runs.lengths[at] : 0;
    int64_t total = 0;
    const int64_t before = sum_before<kScanThreads>(own, &total);
    if (at < end) ends[at] = static_cast<int>(min(before_chunk + before + own, pixels));
    before_chunk += total;
  }
}

// How many of `count` rising ends are at most `at`: the run that the pixel lies in.
__device__ int64_t run_of(const int* ends, int64_t count, int at) {
  int64_t low = 0;
  int64_t high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (ends[middle] <= at) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// One thread: kRows pixels of a column.
__global__ void __launch_bounds__(kThreads)
    write_kernel(Runs runs, const int* all_ends, int height, int width, uint8_t* masks) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = index / width * kRows;
  if (first >= height) return;
  const int64_t item = blockIdx.y;
  const int x = static_cast<int>(index % width);
  const int* ends = all_ends + runs.begin(item);
  const int64_t count = runs.end(item) - runs.begin(item);
  uint8_t* mask = masks + item * height * width + x;
  int at = x * height + static_cast<int>(first);
  int64_t run = run_of(ends, count, at);
  const int64_t last = min(first + kRows, static_cast<int64_t>(height));
  for (int64_t y = first; y < last; ++y, ++at) {
    while (run < count && ends[run] <= at) ++run;
    mask[y * width] = run < count ? static_cast<uint8_t>(run % 2) : uint8_t{0};
  }
}

}  // namespace

void rle_decode_cuda(const uint32_t* runs, const int64_t* offsets, int64_t batch, int64_t height,
                     int64_t width, int64_t capacity, uint8_t* masks, CudaQueue& queue) {
  const Runs given{runs, offsets, capacity};
  int* ends = queue.take<int>(capacity);
  const int64_t threads = ceil_div<int64_t>(height, kRows) * width;
  launch(queue, end_kernel, static_cast<unsigned>(batch), kScanThreads, given, height * width, ends);
  launch(queue, write_kernel,
         dim3(static_cast<unsigned>(ceil_div<int64_t>(threads, kThreads)), static_cast<unsigned>(batch)),
         kThreads, given, ends, static_cast<int>(height), static_cast<int>(width), masks);
}

}  // namespace patchcut
