#pragma once

#include <cstdint>

#include "patchcut/patchcut.h"

namespace patchcut {

class CudaQueue;

struct FrameView {
  const uint8_t* data;  // [height, width, 3], first pixel; NV12: the luma, [height, width]
  int64_t height;
  int64_t width;
  int64_t row_stride;  // bytes, of either sign
  int64_t pixel_stride;
  int64_t channel_stride;
  // NV12: [height / 2, width / 2, 2], with the row_stride of the luma; else null.
  const uint8_t* chroma = nullptr;
};

void preprocess_cpu(const FrameView& frame, const patchcut_preprocess_params& params,
                    float* image);  // [3, height, width], 0 outside the rectangle

// Of a batch of frames, `frame_stride` bytes apart; arrays lie on the queue's device. `dtype` is
// patchcut_dtype.
void preprocess_cuda(const FrameView& frame, int64_t batch, int64_t frame_stride,
                     const patchcut_preprocess_params& params,
                     void* images,  // [batch, 3, height, width], 0 outside the rectangle
                     int32_t dtype, CudaQueue& queue);

}  // namespace patchcut
