// From the assignment of patches to labels and regions of a frame, by libpatchcut.
#pragma once

#include <patchcut/patchcut.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "frames.h"

// What an assignment is of: rows [grid.height * grid.width, labels] float32 for the pixels of a frame.
struct AssignmentShape {
  SizeHw frame, grid;
  int64_t labels = 0;
  double min_area_patches = 0;  // regions smaller than so many rows become background
};

struct Region {
  int32_t label;
  int64_t area;
  float box_xyxy[4];  // half-open, in pixels
  float confidence;   // mean over its pixels, in [0, 1]
};

// What a frame holds; its memory is used again by the next `find`.
struct Regions {
  std::vector<int32_t> labels;  // [height, width], 0 is background
  std::vector<int32_t> ids;     // [height, width], i + 1 where region i is
  std::vector<Region> found;    // in scan order
};

inline void check(patchcut_status status) {
  if (status != PATCHCUT_OK) throw std::runtime_error(patchcut_last_error());
}

inline void find(const AssignmentShape& shape, const float* assignment, Regions& regions) {
  const SizeHw size = shape.frame, grid = shape.grid;
  const auto pixels = static_cast<size_t>(size.area());
  regions.labels.resize(pixels);
  regions.ids.resize(pixels);
  static thread_local std::vector<float> confidence;
  confidence.resize(pixels);
  check(patchcut_upsample_argmax(assignment, 1, grid.height, grid.width, shape.labels, size.height,
                                 size.width, regions.labels.data(), confidence.data(), nullptr));
  const double patch_area = static_cast<double>(pixels) / grid.area();
  const auto min_area = static_cast<int64_t>(std::ceil(shape.min_area_patches * patch_area));
  int32_t count = 0;
  check(patchcut_connected_components(regions.labels.data(), 1, size.height, size.width, 8,
                                      std::max<int64_t>(min_area, 1), regions.ids.data(),
                                      regions.labels.data(), &count, nullptr));
  std::vector<int64_t> areas(count);
  std::vector<int32_t> labels(count);
  std::vector<float> boxes(4 * count), confidences(count);
  check(patchcut_region_stats(regions.ids.data(), regions.labels.data(), confidence.data(), 1, size.height,
                              size.width, count, areas.data(), boxes.data(), confidences.data(),
                              labels.data(), nullptr));
  regions.found.resize(count);
  for (int32_t i = 0; i < count; ++i) {
    const float* box = &boxes[4 * i];
    regions.found[i] = {labels[i], areas[i], {box[0], box[1], box[2], box[3]}, confidences[i]};
  }
}
