// From an assignment to the objects that DeepStream takes: boxes, scores, and a mask of each box.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "../regions.h"

struct Instance {
  int32_t label;  // column of the assignment; 0 would be background
  float left, top, width, height;
  float confidence;
  std::vector<float> mask;  // [height, width] of the box, 1 where the object is, else 0
};

// The shape of an assignment [rows, labels] for frames of a size. Backbones' inputs are square, and so are
// their grids of patches; `patchcut export fused` writes both numbers of a region's least area into the file.
inline AssignmentShape shape_of(int64_t rows, int64_t labels, SizeHw frame, double min_area_patches) {
  const auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(rows))));
  if (side < 1 || side * side != rows || labels < 2) {
    throw std::runtime_error("an assignment has a square number of rows and two columns or more, got [" +
                             std::to_string(rows) + ", " + std::to_string(labels) + "]");
  }
  return {frame, {side, side}, labels, min_area_patches};
}

// The regions of a frame whose confidence is at least the threshold of their label; of labels beyond those
// that have a threshold, all.
inline std::vector<Instance> instances_of(const AssignmentShape& shape, const float* assignment,
                                          const std::vector<float>& thresholds) {
  static thread_local Regions regions;
  find(shape, assignment, regions);
  std::vector<Instance> found;
  for (size_t i = 0; i < regions.found.size(); ++i) {
    const Region& region = regions.found[i];
    const auto label = static_cast<size_t>(region.label);
    if (label < thresholds.size() && region.confidence < thresholds[label]) continue;
    const auto left = static_cast<int64_t>(region.box_xyxy[0]),
               top = static_cast<int64_t>(region.box_xyxy[1]);
    const auto right = static_cast<int64_t>(region.box_xyxy[2]);
    const auto bottom = static_cast<int64_t>(region.box_xyxy[3]);
    Instance one{region.label,
                 static_cast<float>(left),
                 static_cast<float>(top),
                 static_cast<float>(right - left),
                 static_cast<float>(bottom - top),
                 region.confidence,
                 {}};
    one.mask.reserve((right - left) * (bottom - top));
    for (int64_t y = top; y < bottom; ++y) {
      const int32_t* row = &regions.ids[y * shape.frame.width];
      for (int64_t x = left; x < right; ++x) {
        one.mask.push_back(row[x] == static_cast<int32_t>(i) + 1 ? 1.0f : 0.0f);
      }
    }
    found.push_back(std::move(one));
  }
  return found;
}
