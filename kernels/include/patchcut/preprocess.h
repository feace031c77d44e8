#pragma once

#include <cstdint>

namespace patchcut {

struct FrameView {
  const uint8_t* data;  // [height, width, 3], first pixel
  int64_t height;
  int64_t width;
  int64_t row_stride;  // bytes, of either sign
  int64_t pixel_stride;
  int64_t channel_stride;
};

// The frame fills the rectangle [top, top + content_height) x [left, left + content_width) of the image.
struct PreprocessParams {
  int64_t height;  // of the image
  int64_t width;
  int64_t top;
  int64_t left;
  int64_t content_height;
  int64_t content_width;
  bool swap_channels;  // the frame is BGR
  float scale[3];      // RGB; image = value * scale + offset
  float offset[3];
};

void preprocess_cpu(const FrameView& frame, const PreprocessParams& params,
                    float* image);  // [3, height, width], 0 outside the rectangle

}  // namespace patchcut
