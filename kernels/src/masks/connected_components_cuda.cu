// Union-find over pixels, whose roots are the first pixels of their components in scan order: Playne and
// Hawick, "A New Algorithm for Parallel Connected-Component Labelling on GPUs" (2018). Pixels of a run within
// a warp start joined; then each pixel joins those neighbours that nobody else joins for it; then every pixel
// looks up its root. Kept roots are numbered in scan order by counts of blocks and their running sum.
#include "cuda/block_scan.cuh"
#include "masks/connected_components.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kScanThreads = 1024;

struct Map {
  const int32_t* labels;  // [batch, height, width], 0 = background
  int height;
  int width;

  __device__ __forceinline__ int pixels() const { return height * width; }
};

// One item's memory.
struct Forest {
  int* parents;  // [pixels], itself for a root
  int* areas;    // [pixels] at roots; later the names
  int* counts;   // [blocks] of kept roots; later how many come before
};

struct Memory {
  int* parents;
  int* areas;
  int* counts;
  int blocks;

  __device__ __forceinline__ Forest of_item(const Map& map) const {
    const int64_t first = static_cast<int64_t>(blockIdx.y) * map.pixels();
    return {parents + first, areas + first, counts + static_cast<int64_t>(blockIdx.y) * blocks};
  }
};

__device__ __forceinline__ int pixel_of_thread() {
  return static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
}

__device__ __forceinline__ const int32_t* labels_of_item(const Map& map) {
  return map.labels + static_cast<int64_t>(blockIdx.y) * map.pixels();
}

__device__ __forceinline__ int find_root(const int* parents, int pixel) {
  while (parents[pixel] != pixel) pixel = parents[pixel];
  return pixel;
}

// The smaller root becomes the parent of the larger. Others may be joining the same trees: what a root's
// entry was before tells whether it still was one.
__device__ void join(int* parents, int a, int b) {
  for (;;) {
    a = find_root(parents, a);
    b = find_root(parents, b);
    if (a == b) return;
    const int larger = max(a, b);
    const int smaller = min(a, b);
    const int before = atomicMin(&parents[larger], smaller);
    if (before == larger) return;
    a = before;
    b = smaller;
  }
}

// The first lane of the run of equal values that the calling lane is in; `starts` is whether a lane's value
// differs from that of the lane before it.
__device__ __forceinline__ int first_lane_of_run(bool starts) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const unsigned all = __ballot_sync(kAllLanes, starts || lane == 0);
  const unsigned up_to_here = all & (kAllLanes >> (kWarp - 1 - lane));
  return kWarp - 1 - __clz(static_cast<int>(up_to_here));
}

__global__ void __launch_bounds__(kThreads) start_kernel(Map map, Memory memory) {
  const Forest forest = memory.of_item(map);
  const int32_t* labels = labels_of_item(map);
  const int at = pixel_of_thread();
  const bool inside = at < map.pixels();
  const bool starts = inside && (at % map.width == 0 || labels[at] != labels[at - 1]);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first = first_lane_of_run(starts);
  if (!inside) return;
  forest.parents[at] = at - (lane - first);
  forest.areas[at] = 0;
}

__global__ void __launch_bounds__(kThreads) join_kernel(Map map, bool diagonal, Memory memory) {
  const int at = pixel_of_thread();
  if (at >= map.pixels()) return;
  const Forest forest = memory.of_item(map);
  const int32_t* labels = labels_of_item(map);
  const int32_t label = labels[at];
  if (label == 0) return;
  const int x = at % map.width;
  const int up = at - map.width;
  const bool has_left = x > 0;
  const bool has_right = x + 1 < map.width;
  const bool same_left = has_left && labels[at - 1] == label;
  if (same_left && threadIdx.x % kWarp == 0) join(forest.parents, at, at - 1);
  if (up < 0) return;
  const bool same_up = labels[up] == label;
  const bool same_up_left = has_left && labels[up - 1] == label;
  // With both on the left of one label, the left pixel joins the rows.
  if (same_up && !(same_left && same_up_left)) join(forest.parents, at, up);
  if (!diagonal || same_up) return;
  if (same_up_left && !same_left) join(forest.parents, at, up - 1);
  const bool same_up_right = has_right && labels[up + 1] == label;
  const bool same_right = has_right && labels[at + 1] == label;
  if (same_up_right && !same_right) join(forest.parents, at, up + 1);
}

// Every pixel's parent becomes its root, whose area grows by runs.
__global__ void __launch_bounds__(kThreads) area_kernel(Map map, Memory memory) {
  const Forest forest = memory.of_item(map);
  const int32_t* labels = labels_of_item(map);
  const int at = pixel_of_thread();
  const bool counts = at < map.pixels() && labels[at] != 0;
  const int root = counts ? find_root(forest.parents, at) : -1;
  if (counts) forest.parents[at] = root;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int before = __shfl_up_sync(kAllLanes, root, 1);
  const unsigned starts = __ballot_sync(kAllLanes, lane == 0 || before != root);
  if (root < 0 || (starts >> lane & 1) == 0) return;
  const unsigned after = lane == kWarp - 1 ? 0 : starts >> (lane + 1);
  const int length = after == 0 ? kWarp - lane : __ffs(static_cast<int>(after));
  atomicAdd(&forest.areas[root], length);
}

__device__ __forceinline__ bool is_kept_root(const Map& map, const Forest& forest, int at, int min_area) {
  return at < map.pixels() && labels_of_item(map)[at] != 0 && forest.parents[at] == at &&
         forest.areas[at] >= min_area;
}

__global__ void __launch_bounds__(kThreads) count_kernel(Map map, int min_area, Memory memory) {
  const Forest forest = memory.of_item(map);
  const int kept = __syncthreads_count(is_kept_root(map, forest, pixel_of_thread(), min_area));
  if (threadIdx.x == 0) forest.counts[blockIdx.x] = kept;
}

// One block for each item: counts of its blocks become how many come before; the total is the item's count.
__global__ void __launch_bounds__(kScanThreads) scan_kernel(Map map, Memory memory, int32_t* totals) {
  int* counts = memory.of_item(map).counts;
  int before_chunk = 0;
  for (int first = 0; first < memory.blocks; first += kScanThreads) {
    const int at = first + static_cast<int>(threadIdx.x);
    int total = 0;
    const int before = sum_before<kScanThreads>(at < memory.blocks ? counts[at] : 0, &total);
    if (at < memory.blocks) counts[at] = before_chunk + before;
    before_chunk += total;
  }
  if (threadIdx.x == 0) totals[blockIdx.y] = before_chunk;
}

// The areas of roots become their names, 0 for those that are not kept.
__global__ void __launch_bounds__(kThreads) name_kernel(Map map, int min_area, Memory memory) {
  const Forest forest = memory.of_item(map);
  const int at = pixel_of_thread();
  const bool kept = is_kept_root(map, forest, at, min_area);
  int total = 0;
  const int before = sum_before<kThreads>(kept ? 1 : 0, &total);
  if (at < map.pixels()) forest.areas[at] = kept ? forest.counts[blockIdx.x] + before + 1 : 0;
}

__global__ void __launch_bounds__(kThreads)
    write_kernel(Map map, Memory memory, int32_t* ids, int32_t* kept_labels) {
  const int at = pixel_of_thread();
  if (at >= map.pixels()) return;
  const Forest forest = memory.of_item(map);
  const int64_t out = static_cast<int64_t>(blockIdx.y) * map.pixels() + at;
  const int32_t label = map.labels[out];
  const int name = label == 0 ? 0 : forest.areas[forest.parents[at]];
  ids[out] = name;
  if (kept_labels != nullptr) kept_labels[out] = name == 0 ? 0 : label;
}

}  // namespace

void connected_components_cuda(const int32_t* label_map, int64_t batch, int64_t height, int64_t width,
                               bool diagonal, int64_t min_area, int32_t* ids, int32_t* kept_labels,
                               int32_t* counts, CudaQueue& queue) {
  const int64_t pixels = height * width;
  if (pixels == 0) return queue.clear(counts, batch);
  const int64_t blocks = ceil_div<int64_t>(pixels, kThreads);
  const Map map{label_map, static_cast<int>(height), static_cast<int>(width)};
  const Memory memory{queue.take<int>(batch * pixels), queue.take<int>(batch * pixels),
                      queue.take<int>(batch * blocks), static_cast<int>(blocks)};
  const int least = static_cast<int>(min_area < pixels + 1 ? min_area : pixels + 1);
  const unsigned items = static_cast<unsigned>(batch);
  const dim3 grid(static_cast<unsigned>(blocks), items);
  launch(queue, start_kernel, grid, kThreads, map, memory);
  launch(queue, join_kernel, grid, kThreads, map, diagonal, memory);
  launch(queue, area_kernel, grid, kThreads, map, memory);
  launch(queue, count_kernel, grid, kThreads, map, least, memory);
  launch(queue, scan_kernel, dim3(1, items), kScanThreads, map, memory, counts);
  launch(queue, name_kernel, grid, kThreads, map, least, memory);
  launch(queue, write_kernel, grid, kThreads, map, memory, ids, kept_labels);
}

}  // namespace patchcut
