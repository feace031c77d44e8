#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

constexpr int64_t kMaxGuidedRadius = 65536;
// Products of these with 255^2 and the inverse of eps, twice summed over a window, stay within float32.
constexpr float kLargestGuidedMap = 1e12f;
constexpr float kLeastGuidedEps = 1e-9f;

// Throws std::invalid_argument where maps are not finite, or above kLargestGuidedMap.
void guided_refine_cpu(const uint8_t* frame,  // [height, width, 3]
                       const float* maps,     // [k, height, width]
                       int64_t k, int64_t height, int64_t width, const patchcut_guided_refine_params& params,
                       float* out);  // [k, height, width], apart from maps

// The largest of the filtered indicators of all labels, the lowest label on a tie.
void guided_refine_labels_cpu(const uint8_t* frame,      // [height, width, 3]
                              const int32_t* label_map,  // [height, width]
                              int64_t height, int64_t width, const patchcut_guided_refine_params& params,
                              int32_t* out);  // [height, width], apart from label_map

// Of batches; arrays lie on the queue's device, and values are not checked.
void guided_refine_cuda(const uint8_t* frames,  // [batch, height, width, 3]
                        const float* maps,      // [batch, k, height, width]
                        int64_t batch, int64_t k, int64_t height, int64_t width,
                        const patchcut_guided_refine_params& params,
                        float* out,  // [batch, k, height, width]
                        CudaQueue& queue);

// Labels are in [0, count), count at least 1; others are as count - 1.
void guided_refine_labels_cuda(const uint8_t* frames,      // [batch, height, width, 3]
                               const int32_t* label_maps,  // [batch, height, width]
                               int64_t batch, int64_t height, int64_t width, int64_t count,
                               const patchcut_guided_refine_params& params,
                               int32_t* out,  // [batch, height, width]
                               CudaQueue& queue);

}  // namespace patchcut
