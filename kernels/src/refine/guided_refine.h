#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

struct GuidedRefineParams {
  int64_t radius = 8;     // the window is 2 * radius + 1 pixels wide; 1 to kMaxGuidedRadius
  float eps = 1e-3f;      // above 0; of squared intensity, where white is 1
  int64_t subsample = 1;  // 1 to kMaxGuidedRadius; above 1, the fast guided filter
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

// Of batches; arrays lie on the queue's device, and values are not checked.
void guided_refine_cuda(const uint8_t* frames,  // [batch, height, width, 3]
                        const float* maps,      // [batch, k, height, width]
                        int64_t batch, int64_t k, int64_t height, int64_t width,
                        const GuidedRefineParams& params,
                        float* out,  // [batch, k, height, width]
                        CudaQueue& queue);

// Labels are in [0, count), count at least 1; others are as count - 1.
void guided_refine_labels_cuda(const uint8_t* frames,      // [batch, height, width, 3]
                               const int32_t* label_maps,  // [batch, height, width]
                               int64_t batch, int64_t height, int64_t width, int64_t count,
                               const GuidedRefineParams& params,
                               int32_t* out,  // [batch, height, width]
                               CudaQueue& queue);

}  // namespace patchcut
