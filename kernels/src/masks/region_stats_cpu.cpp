#include <algorithm>
#include <stdexcept>
#include <string>

#include "cpu/interrupt.h"
#include "cpu/runs.h"
#include "cpu/scratch.h"
#include "masks/region_stats.h"

namespace patchcut {
namespace {

struct Region {
  int64_t area;
  int64_t x0, y0, x1, y1;
  double confidence;
  int32_t label;
};

void add_run(int64_t begin, int64_t end, int64_t y, Region* region) {
  if (region->area == 0) *region = {0, begin, y, end, y + 1, region->confidence, region->label};
  region->area += end - begin;
  region->x0 = std::min(region->x0, begin);
  region->x1 = std::max(region->x1, end);
  region->y1 = y + 1;
}

// Four sums hide the latency of an addition.
double sum_run(const float* values, int64_t count) {
  double sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int s = 0; s < 4; ++s) sums[s] += static_cast<double>(values[i + s]);
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(values[i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

void write_region(const Region& region, int64_t index, const RegionArrays& regions) {
  regions.area[index] = region.area;
  const int64_t box[4] = {region.x0, region.y0, region.x1, region.y1};
  std::copy_n(box, 4, regions.boxes_xyxy + 4 * index);
  if (regions.mean_confidence != nullptr) {
    const double area = static_cast<double>(std::max<int64_t>(region.area, 1));
    regions.mean_confidence[index] = static_cast<float>(region.confidence / area);
  }
  if (regions.label != nullptr) regions.label[index] = region.label;
}

}  // namespace

void region_stats_cpu(const int32_t* ids, const int32_t* label_map, const float* confidence, int64_t height,
                      int64_t width, int64_t count, const RegionArrays& regions) {
  Scratch scratch;
  Region* found = scratch.take<Region>(count);
  std::fill_n(found, count, Region{});
  InterruptPoll poll;
  for (int64_t y = 0; y < height; ++y) {
    poll.spend(width);
    const int32_t* row = ids + y * width;
    for (int64_t x = 0, end = 0; x < width; x = end) {
      end = run_end(row, x, width);
      if (row[x] == 0) continue;
      if (row[x] < 0 || row[x] > count) {
        throw std::invalid_argument("[region_stats] ids must be in [0, " + std::to_string(count) + "], got " +
                                    std::to_string(row[x]));
      }
      Region& region = found[row[x] - 1];
      if (region.area == 0 && label_map != nullptr) region.label = label_map[y * width + x];
      add_run(x, end, y, &region);
      if (confidence != nullptr) region.confidence += sum_run(confidence + y * width + x, end - x);
    }
  }
  for (int64_t r = 0; r < count; ++r) write_region(found[r], r, regions);
}

}  // namespace patchcut
