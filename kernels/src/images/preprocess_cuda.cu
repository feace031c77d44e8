// One kernel; one thread: one pixel of an image. A block works out which pixels of the frame its rows and
// columns take and with what weights; its threads then add those up, which stay in the first-level cache.
#include "cuda/launch.cuh"
#include "cuda/resampling.cuh"
#include "images/nv12.h"
#include "images/preprocess.h"

namespace patchcut {
namespace {

constexpr int kBlockWidth = 32;
constexpr int kBlockHeight = 8;
constexpr int kThreads = kBlockWidth * kBlockHeight;

// An output position is the weighted sum of `count` source values from `first` on.
struct Taps {
  int first;
  int count;
  float first_weight;
  float middle_weight;
  float last_weight;

  __device__ __forceinline__ float weight(int tap) const {
    return tap == 0 ? first_weight : tap + 1 == count ? last_weight : middle_weight;
  }
};

// Exact box filter: position i covers [i, i + 1) * source / size, measured in units of 1 / size.
__device__ Taps area_taps(int i, int source, int size) {
  const int64_t begin = static_cast<int64_t>(i) * source;
  const int64_t end = begin + source;
  const int first = static_cast<int>(begin / size);
  const int last = static_cast<int>((end + size - 1) / size);
  const float scale = 1.0f / static_cast<float>(source);
  const int64_t in_first = (static_cast<int64_t>(first) + 1) * size - begin;
  const int64_t in_last = end - (static_cast<int64_t>(last) - 1) * size;
  return {first, last - first, static_cast<float>(in_first) * scale, static_cast<float>(size) * scale,
          static_cast<float>(in_last) * scale};
}

// Bilinear between pixel centres, the border repeated.
__device__ Taps linear_taps(int i, int source, int size) {
  const LinearPosition at = linear_position(i, source, size);
  return {at.low, at.high > at.low ? 2 : 1, 1.0f - at.fraction, 0.0f, at.fraction};
}

__device__ Taps taps_of(int i, int source, int size) {
  return source > size ? area_taps(i, source, size) : linear_taps(i, source, size);
}

struct Shared {
  Taps rows[kBlockHeight];
  Taps columns[kBlockWidth];
};

struct Job {
  FrameView frame;
  int64_t frame_stride;  // bytes from one item to the next
  patchcut_preprocess_params params;
};

// Three values from 0 to 255, R, G, B.
struct Pixel {
  float values[3];
};

__device__ __forceinline__ Rgb read_nv12(const FrameView& frame, int64_t offset, int y, int x) {
  const uint8_t* chroma = frame.chroma + offset + (y / 2) * frame.row_stride + x / 2 * 2;
  return nv12_pixel(frame.data[offset + y * frame.row_stride + x], chroma);
}

__device__ __forceinline__ Rgb read_packed(const FrameView& frame, int64_t offset, int y, int x, bool bgr) {
  const uint8_t* pixel = frame.data + offset + y * frame.row_stride + x * frame.pixel_stride;
  const int64_t step = frame.channel_stride;
  return bgr ? Rgb{{pixel[2 * step], pixel[step], pixel[0]}} : Rgb{{pixel[0], pixel[step], pixel[2 * step]}};
}

template <bool nv12>
__device__ Pixel resize_pixel(const Job& job, int64_t item, const Taps& rows, const Taps& columns) {
  const int64_t offset = item * job.frame_stride;
  Pixel total{};
  for (int t = 0; t < rows.count; ++t) {
    Pixel of_row{};
    for (int s = 0; s < columns.count; ++s) {
      const int y = rows.first + t;
      const int x = columns.first + s;
      const Rgb rgb = nv12 ? read_nv12(job.frame, offset, y, x)
                           : read_packed(job.frame, offset, y, x, job.params.color == PATCHCUT_BGR);
      const float weight = columns.weight(s);
      for (int c = 0; c < 3; ++c) of_row.values[c] += weight * static_cast<float>(rgb.values[c]);
    }
    for (int c = 0; c < 3; ++c) total.values[c] += rows.weight(t) * of_row.values[c];
  }
  return total;
}

template <bool nv12, class Result>
__global__ void __launch_bounds__(kThreads) preprocess_kernel(Job job, Result* images) {
  auto& shared = shared_memory<Shared>();
  const patchcut_preprocess_params& params = job.params;
  const int thread = static_cast<int>(threadIdx.x);
  const int first_x = static_cast<int>(blockIdx.x) * kBlockWidth;
  const int first_y = static_cast<int>(blockIdx.y) * kBlockHeight;
  const int left = static_cast<int>(params.left);
  const int top = static_cast<int>(params.top);
  if (thread < kBlockWidth) {
    shared.columns[thread] = taps_of(max(first_x + thread - left, 0), static_cast<int>(job.frame.width),
                                     static_cast<int>(params.content_width));
  } else if (thread < kBlockWidth + kBlockHeight) {
    const int row = thread - kBlockWidth;
    shared.rows[row] = taps_of(max(first_y + row - top, 0), static_cast<int>(job.frame.height),
                               static_cast<int>(params.content_height));
  }
  __syncthreads();
  const int x = first_x + thread % kBlockWidth;
  const int y = first_y + thread / kBlockWidth;
  if (x >= params.width || y >= params.height) return;
  const bool inside =
      x >= left && x - left < params.content_width && y >= top && y - top < params.content_height;
  const int64_t item = blockIdx.z;
  const int64_t plane = params.height * params.width;
  Result* out = images + item * 3 * plane + static_cast<int64_t>(y) * params.width + x;
  Pixel pixel{};
  if (inside) {
    pixel = resize_pixel<nv12>(job, item, shared.rows[thread / kBlockWidth],
                               shared.columns[thread % kBlockWidth]);
  }
  for (int c = 0; c < 3; ++c) {
    const float value = inside ? pixel.values[c] * params.scale[c] + params.offset[c] : 0.0f;
    out[c * plane] = from_float<Result>(value);
  }
}

}  // namespace

void preprocess_cuda(const FrameView& frame, int64_t batch, int64_t frame_stride,
                     const patchcut_preprocess_params& params, void* images, int32_t dtype,
                     CudaQueue& queue) {
  const Job job{frame, frame_stride, params};
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(params.width, kBlockWidth)),
                  static_cast<unsigned>(ceil_div<int64_t>(params.height, kBlockHeight)),
                  static_cast<unsigned>(batch));
  with_float_type(dtype, [&](auto zero) {
    using Result = decltype(zero);
    const auto kernel =
        frame.chroma == nullptr ? preprocess_kernel<false, Result> : preprocess_kernel<true, Result>;
    launch(queue, kernel, grid, kThreads, job, static_cast<Result*>(images));
  });
}

}  // namespace patchcut
