// From the assignment of patches to labels and regions of a frame, by libpatchcut.
#pragma once

#include <patchcut/patchcut.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "model.h"

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

// Regions smaller than the model's `min_area_patches` patches become background.
inline void find(const Model& model, const float* assignment, Regions& regions) {
  const SizeHw size = model.frame(), grid = model.grid();
  const size_t pixels = static_cast<size_t>(size.height) * size.width;
  regions.labels.resize(pixels);
  regions.ids.resize(pixels);
  static thread_local std::vector<float> confidence;
  confidence.resize(pixels);
  check(patchcut_upsample_argmax(assignment, 1, grid.height, grid.width, model.labels(), size.height,
                                 size.width, regions.labels.data(), confidence.data(), nullptr));
  const double patch_area = static_cast<double>(pixels) / (grid.height * grid.width);
  const auto min_area = static_cast<int64_t>(std::ceil(model.min_area_patches() * patch_area));
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
