#pragma once

#include <cstdint>

namespace patchcut {

struct GuidedRefineParams {
  int64_t radius = 8;     // the window is 2 * radius + 1 pixels wide; 1 to kMaxGuidedRadius
  float eps = 1e-3f;      // above 0; of squared intensity, where white is 1
  int64_t subsample = 1;  // at least 1; above it, the fast guided filter
};

constexpr int64_t kMaxGuidedRadius = 1024;

// Throws std::invalid_argument where maps are not finite.
void guided_refine_cpu(const uint8_t* frame,  // [height, width, 3]
                       const float* maps,     // [k, height, width]
                       int64_t k, int64_t height, int64_t width, const GuidedRefineParams& params,
                       float* out);  // [k, height, width], apart from maps

// The largest of the filtered indicators of all labels, the lowest label on a tie.
void guided_refine_labels_cpu(const uint8_t* frame,      // [height, width, 3]
                              const int32_t* label_map,  // [height, width]
                              int64_t height, int64_t width, const GuidedRefineParams& params,
                              int32_t* out);  // [height, width], apart from label_map

}  // namespace patchcut
