// Three kernels. In the first, each thread adds up runs of equal ids among its pixels in registers, a warp
// whose pixels are of one region adds its lanes, and the block collects regions in shared memory before it
// adds them to those in device memory: most pixels lie in few regions, on whose sums all blocks meet. The
// second adds up confidence in the same way, as integers (fixed_sum.cuh) whose unit the first has found: what
// blocks add as they come is then the same in every run. The third writes the results.
#include "cuda/fixed_sum.cuh"
#include "cuda/launch.cuh"
#include "masks/region_stats.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kPixels = 8;  // of a thread, a warp's width apart
constexpr int kSharedRegions = 256;

// What is known of a region so far. Zeros are the empty one, so that it is kept as maxima.
struct Region {
  int64_t area;
  int left;  // width - x of the leftmost pixel
  int top;   // height - y of the topmost
  int right;
  int bottom;
  int64_t first;        // pixels - index of the first pixel
  unsigned peak;        // magnitude_of the largest confidence
  FixedSum confidence;  // by the second kernel

  __device__ void add(const Region& other) {
    area += other.area;
    left = max(left, other.left);
    top = max(top, other.top);
    right = max(right, other.right);
    bottom = max(bottom, other.bottom);
    first = max(first, other.first);
    peak = max(peak, other.peak);
  }
  __device__ FixedUnit unit() const { return FixedUnit(peak, area); }
};

using Unsigned = unsigned long long;

__device__ void add_atomically(Region* region, const Region& more) {
  atomicAdd(reinterpret_cast<Unsigned*>(&region->area), static_cast<Unsigned>(more.area));
  atomicMax(&region->left, more.left);
  atomicMax(&region->top, more.top);
  atomicMax(&region->right, more.right);
  atomicMax(&region->bottom, more.bottom);
  atomicMax(reinterpret_cast<Unsigned*>(&region->first), static_cast<Unsigned>(more.first));
  atomicMax(&region->peak, more.peak);
}

struct Map {
  const int32_t* ids;       // [batch, height, width]
  const float* confidence;  // the same, or null
  int height;
  int width;
  int64_t count;
};

// Calls visit(id, index, confidence) for those of kThreads * kPixels pixels of item blockIdx.y that are of a
// region and the calling thread's: a warp's are neighbours.
template <class Visit>
__device__ __forceinline__ void for_pixels(const Map& map, const Visit& visit) {
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t pixels = static_cast<int64_t>(map.height) * map.width;
  const int64_t item_first = blockIdx.y * pixels;
  const int64_t warp_first = (static_cast<int64_t>(blockIdx.x) * kThreads + thread / kWarp * kWarp) * kPixels;
  for (int i = 0; i < kPixels; ++i) {
    const int64_t at = warp_first + i * kWarp + thread % kWarp;
    if (at >= pixels) return;
    const int32_t id = map.ids[item_first + at];
    if (id <= 0 || id > map.count) continue;
    visit(id, at, map.confidence == nullptr ? 0.0f : map.confidence[item_first + at]);
  }
}

struct Shared {
  Region regions[kSharedRegions];
};

__device__ void flush(const Region& region, int32_t id, Shared& shared, Region* regions) {
  if (region.area == 0) return;
  add_atomically(id <= kSharedRegions ? &shared.regions[id - 1] : &regions[id - 1], region);
}

// The lanes' last regions: one for the warp where all are of one id.
__device__ void flush_warp(Region region, int32_t id, Shared& shared, Region* regions) {
  const int32_t first_id = __shfl_sync(kAllLanes, id, 0);
  if (!__all_sync(kAllLanes, id == first_id)) return flush(region, id, shared, regions);
  region.area = reduce_warp(region.area, Sum());
  region.left = reduce_warp(region.left, Max());
  region.top = reduce_warp(region.top, Max());
  region.right = reduce_warp(region.right, Max());
  region.bottom = reduce_warp(region.bottom, Max());
  region.first = reduce_warp(region.first, Max());
  region.peak = reduce_warp(region.peak, Max());
  if (threadIdx.x % kWarp == 0) flush(region, id, shared, regions);
}

__device__ Region region_of_pixel(const Map& map, int64_t at, float confidence) {
  const int64_t pixels = static_cast<int64_t>(map.height) * map.width;
  const int y = static_cast<int>(at / map.width);
  const int x = static_cast<int>(at - static_cast<int64_t>(y) * map.width);
  return {1, map.width - x, map.height - y, x + 1, y + 1, pixels - at, magnitude_of(confidence), 0};
}

__device__ __forceinline__ int slots_of(const Map& map) {
  return static_cast<int>(min(map.count, static_cast<int64_t>(kSharedRegions)));
}

// One block: kThreads * kPixels pixels.
__global__ void __launch_bounds__(kThreads) collect_kernel(Map map, Region* regions) {
  auto& shared = shared_memory<Shared>();
  const int thread = static_cast<int>(threadIdx.x);
  for (int r = thread; r < slots_of(map); r += kThreads) shared.regions[r] = Region{};
  __syncthreads();
  regions += blockIdx.y * map.count;
  Region region{};
  int32_t current = 1;
  for_pixels(map, [&](int32_t id, int64_t at, float confidence) {
    if (id != current) {
      flush(region, current, shared, regions);
      region = Region{};
      current = id;
    }
    region.add(region_of_pixel(map, at, confidence));
  });
  flush_warp(region, current, shared, regions);
  __syncthreads();
  for (int r = thread; r < slots_of(map); r += kThreads) {
    if (shared.regions[r].area > 0) add_atomically(&regions[r], shared.regions[r]);
  }
}

struct SharedSums {
  FixedSum confidence[kSharedRegions];
};

__device__ void flush_sum(FixedSum sum, int32_t id, SharedSums& shared, Region* regions) {
  if (sum == 0) return;
  atomicAdd(id <= kSharedRegions ? &shared.confidence[id - 1] : &regions[id - 1].confidence, sum);
}

// One block: the confidence of kThreads * kPixels pixels.
__global__ void __launch_bounds__(kThreads) sum_kernel(Map map, Region* regions) {
  auto& shared = shared_memory<SharedSums>();
  const int thread = static_cast<int>(threadIdx.x);
  for (int r = thread; r < slots_of(map); r += kThreads) shared.confidence[r] = 0;
  __syncthreads();
  regions += blockIdx.y * map.count;
  FixedSum sum = 0;
  int32_t current = 1;
  FixedUnit unit = regions[0].unit();
  for_pixels(map, [&](int32_t id, int64_t, float confidence) {
    if (id != current) {
      flush_sum(sum, current, shared, regions);
      sum = 0;
      current = id;
      unit = regions[id - 1].unit();
    }
    sum += unit.count(confidence);
  });
  const bool of_one_region = __all_sync(kAllLanes, current == __shfl_sync(kAllLanes, current, 0)) != 0;
  if (of_one_region) sum = reduce_warp(sum, Sum());
  if (!of_one_region || thread % kWarp == 0) flush_sum(sum, current, shared, regions);
  __syncthreads();
  for (int r = thread; r < slots_of(map); r += kThreads) {
    if (shared.confidence[r] != 0) atomicAdd(&regions[r].confidence, shared.confidence[r]);
  }
}

// One thread: one region.
__global__ void __launch_bounds__(kThreads)
    write_kernel(Map map, const int32_t* label_map, const Region* regions, RegionArrays out) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= map.count) return;
  const int64_t at = blockIdx.y * map.count + index;
  const int64_t pixels = static_cast<int64_t>(map.height) * map.width;
  const Region region = regions[at];
  const bool any = region.area > 0;
  out.area[at] = region.area;
  out.boxes_xyxy[4 * at] = any ? static_cast<float>(map.width - region.left) : 0.0f;
  out.boxes_xyxy[4 * at + 1] = any ? static_cast<float>(map.height - region.top) : 0.0f;
  out.boxes_xyxy[4 * at + 2] = static_cast<float>(region.right);
  out.boxes_xyxy[4 * at + 3] = static_cast<float>(region.bottom);
  if (out.mean_confidence != nullptr) {
    const double sum = region.unit().value(region.confidence);
    out.mean_confidence[at] = any ? static_cast<float>(sum / static_cast<double>(region.area)) : 0.0f;
  }
  if (out.label != nullptr) out.label[at] = any ? label_map[blockIdx.y * pixels + pixels - region.first] : 0;
}

}  // namespace

void region_stats_cuda(const int32_t* ids, const int32_t* label_map, const float* confidence, int64_t batch,
                       int64_t height, int64_t width, int64_t count, const RegionArrays& regions,
                       CudaQueue& queue) {
  const Map map{ids, confidence, static_cast<int>(height), static_cast<int>(width), count};
  const unsigned items = static_cast<unsigned>(batch);
  Region* collected = queue.take<Region>(batch * count);
  queue.clear(collected, batch * count);
  const auto blocks = [](int64_t size, int64_t of_block) {
    return static_cast<unsigned>(ceil_div(size, of_block));
  };
  if (count > 0) {
    const dim3 pixel_blocks(blocks(height * width, kThreads * kPixels), items);
    launch(queue, collect_kernel, pixel_blocks, kThreads, map, collected);
    if (confidence != nullptr) launch(queue, sum_kernel, pixel_blocks, kThreads, map, collected);
  }
  launch(queue, write_kernel, dim3(blocks(count, kThreads), items), kThreads, map, label_map, collected,
         regions);
}

}  // namespace patchcut
