#include <algorithm>

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "images/nv12.h"
#include "images/preprocess.h"
#include "images/simd.h"

namespace patchcut {
namespace {

// Output position i is the sum of counts[i] source values from starts[i] on, weighted.
struct Taps {
  int32_t* starts;
  int32_t* counts;
  float* weights;  // [size, stride]
  int64_t stride;
};

// Exact box filter: position i covers [i, i + 1) * source / size, measured in units of 1 / size.
void set_area_taps(int64_t source, int64_t size, Taps* taps) {
  for (int64_t i = 0; i < size; ++i) {
    const int64_t begin = i * source;
    const int64_t end = begin + source;
    const int64_t first = begin / size;
    const int64_t last = (end + size - 1) / size;
    taps->starts[i] = static_cast<int32_t>(first);
    taps->counts[i] = static_cast<int32_t>(last - first);
    for (int64_t j = first; j < last; ++j) {
      const int64_t overlap = std::min(end, (j + 1) * size) - std::max(begin, j * size);
      taps->weights[i * taps->stride + j - first] =
          static_cast<float>(static_cast<double>(overlap) / static_cast<double>(source));
    }
  }
}

// Bilinear between pixel centres, the border repeated.
void set_linear_taps(int64_t source, int64_t size, Taps* taps) {
  const double ratio = static_cast<double>(source) / static_cast<double>(size);
  for (int64_t i = 0; i < size; ++i) {
    const double at =
        std::clamp((static_cast<double>(i) + 0.5) * ratio - 0.5, 0.0, static_cast<double>(source - 1));
    const int64_t first = static_cast<int64_t>(at);
    const float fraction = static_cast<float>(at - static_cast<double>(first));
    taps->starts[i] = static_cast<int32_t>(first);
    taps->counts[i] = first + 1 < source ? 2 : 1;
    taps->weights[i * taps->stride] = 1.0f - fraction;
    taps->weights[i * taps->stride + 1] = fraction;
  }
}

Taps make_taps(int64_t source, int64_t size, Scratch* scratch) {
  const int64_t stride = source > size ? source / size + 2 : 2;
  Taps taps{scratch->take<int32_t>(size), scratch->take<int32_t>(size), scratch->take<float>(size * stride),
            stride};
  if (source > size) {
    set_area_taps(source, size, &taps);
  } else {
    set_linear_taps(source, size, &taps);
  }
  return taps;
}

// The frame as rows of packed pixels; a channel order that runs backwards is undone by swapping channels.
struct Layout {
  FrameView frame;
  bool swap_channels;
  bool packed;
};

Layout make_layout(const FrameView& frame, bool swap_channels) {
  Layout layout{frame, swap_channels, false};
  if (frame.chroma != nullptr) return layout;
  if (frame.channel_stride == -1) {
    layout.frame.data -= 2;
    layout.frame.channel_stride = 1;
    layout.swap_channels = !swap_channels;
  }
  layout.packed = layout.frame.channel_stride == 1 && (layout.frame.pixel_stride == 3 || frame.width == 1);
  return layout;
}

void convert_nv12_row(const FrameView& frame, int64_t y, uint8_t* copy) {
  const uint8_t* luma = frame.data + y * frame.row_stride;
  const uint8_t* chroma = frame.chroma + y / 2 * frame.row_stride;
  for (int64_t x = 0; x < frame.width; ++x) {
    const Rgb rgb = nv12_pixel(luma[x], chroma + x / 2 * 2);
    std::copy_n(rgb.values, 3, copy + 3 * x);
  }
}

const uint8_t* packed_row(const Layout& layout, int64_t y, uint8_t* copy) {
  const FrameView& frame = layout.frame;
  if (frame.chroma != nullptr) {
    convert_nv12_row(frame, y, copy);
    return copy;
  }
  const uint8_t* row = frame.data + y * frame.row_stride;
  if (layout.packed) return row;
  for (int64_t x = 0; x < frame.width; ++x) {
    const uint8_t* pixel = row + x * frame.pixel_stride;
    for (int64_t c = 0; c < 3; ++c) copy[3 * x + c] = pixel[c * frame.channel_stride];
  }
  return copy;
}

struct Job {
  const ImageTable& loops;
  const patchcut_preprocess_params& params;
  Layout layout;
  Taps rows;
  Taps columns;
  float* image;
};

void resize_image_row(const Job& job, int64_t y, float* const* planes) {
  const FrameView& frame = job.layout.frame;
  const patchcut_preprocess_params& params = job.params;
  const int64_t values = 3 * frame.width;
  const int64_t taps = job.rows.counts[y];
  Scratch scratch;
  const uint8_t** sources = scratch.take<const uint8_t*>(taps);
  for (int64_t t = 0; t < taps; ++t) {
    uint8_t* copy = job.layout.packed ? nullptr : scratch.take<uint8_t>(values);
    sources[t] = packed_row(job.layout, job.rows.starts[y] + t, copy);
  }
  float* blended = scratch.take<float>(values + 1);
  blended[values] = 0.0f;
  job.loops.blend_bytes(values, taps, sources, job.rows.weights + y * job.rows.stride, blended);
  const int order[3] = {job.layout.swap_channels ? 2 : 0, 1, job.layout.swap_channels ? 0 : 2};
  float scale[3];
  float offset[3];
  float* targets[3];
  for (int c = 0; c < 3; ++c) {
    scale[c] = params.scale[order[c]];
    offset[c] = params.offset[order[c]];
    targets[c] = planes[order[c]] + params.left;
  }
  job.loops.resize_row(params.content_width, blended, job.columns.starts, job.columns.counts,
                       job.columns.weights, job.columns.stride, scale, offset, targets);
}

void fill_image_row(const Job& job, int64_t y) {
  const patchcut_preprocess_params& params = job.params;
  float* planes[3];
  for (int64_t c = 0; c < 3; ++c) planes[c] = job.image + (c * params.height + y) * params.width;
  const bool inside = y >= params.top && y < params.top + params.content_height;
  for (float* plane : planes) {
    std::fill(plane, plane + (inside ? params.left : params.width), 0.0f);
    if (inside) std::fill(plane + params.left + params.content_width, plane + params.width, 0.0f);
  }
  if (inside) resize_image_row(job, y - params.top, planes);
}

}  // namespace

void preprocess_cpu(const FrameView& frame, const patchcut_preprocess_params& params, float* image) {
  Scratch scratch;
  const Job job{simd().get<ImageTable>(),
                params,
                make_layout(frame, params.color == PATCHCUT_BGR),
                make_taps(frame.height, params.content_height, &scratch),
                make_taps(frame.width, params.content_width, &scratch),
                image};
  const int64_t cycles_per_row = frame.width * job.rows.stride / 2 + 4 * params.width;
  parallel_for(params.height, cycles_per_row, [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) fill_image_row(job, y);
  });
}

}  // namespace patchcut
