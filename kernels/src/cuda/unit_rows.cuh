// Feature rows as float32, divided by their L2 norm where asked.
#pragma once

#include "cuda/launch.cuh"

namespace patchcut {

// A power of two that brings the largest magnitude of a row near 1; 0 for a zero row.
__device__ __forceinline__ float safe_scale(float largest) {
  return largest == 0.0f ? 0.0f : ldexpf(1.0f, min(126, -ilogbf(largest)));
}

// 1 / |row * scale| * scale in two factors, since their product may leave the range of float; the whole warp
// calls it.
template <class T>
__device__ float2 inverse_norm(const T* row, int d) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto sum_squares = [&](float scale) {
    float sum = 0.0f;
    for (int p = lane; p < d; p += kWarp) {
      const float x = to_float(row[p]) * scale;
      sum += x * x;
    }
    return reduce_warp(sum, Sum());
  };
  const float squares = sum_squares(1.0f);
  if (squares > 1e-30f && squares < 1e30f) return make_float2(1.0f, 1.0f / sqrtf(squares));
  float largest = 0.0f;
  for (int p = lane; p < d; p += kWarp) largest = fmaxf(largest, fabsf(to_float(row[p])));
  const float scale = safe_scale(reduce_warp(largest, Max()));
  const float safe_squares = sum_squares(scale);
  return make_float2(scale, safe_squares > 0.0f ? 1.0f / sqrtf(safe_squares) : 0.0f);
}

constexpr int kUnitRowsThreads = 256;

// One warp: one row of `features`, and zeros up to `stride`.
template <class T>
__global__ void __launch_bounds__(kUnitRowsThreads)
    unit_rows_kernel(const T* features, int64_t rows, int d, bool normalize, int stride, float* out) {
  constexpr int kWarps = kUnitRowsThreads / kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const T* source = features + row * d;
  const float2 factors = normalize ? inverse_norm(source, d) : make_float2(1.0f, 1.0f);
  for (int p = static_cast<int>(threadIdx.x) % kWarp; p < stride; p += kWarp) {
    out[row * stride + p] = p < d ? to_float(source[p]) * factors.x * factors.y : 0.0f;
  }
}

// out [rows, stride] = features [rows, d] of `dtype`, divided by their norm where `normalize`, and zeros past
// column d; zero rows stay zero.
inline void queue_unit_rows(const void* features, int32_t dtype, int64_t rows, int64_t d, bool normalize,
                            int64_t stride, float* out, CudaQueue& queue) {
  constexpr int64_t kRowsOfBlock = kUnitRowsThreads / kWarp;
  with_float_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(queue, unit_rows_kernel<T>, static_cast<unsigned>(ceil_div(rows, kRowsOfBlock)), kUnitRowsThreads,
           static_cast<const T*>(features), rows, static_cast<int>(d), normalize, static_cast<int>(stride),
           out);
  });
}

struct UnitRows {
  const float* data;  // [rows, stride], zeros past column d
  int64_t stride;     // d rounded up, so that four neighbours can be read at once
};

// The same in memory of the queue.
inline UnitRows unit_rows(const void* features, int32_t dtype, int64_t rows, int64_t d, bool normalize,
                          CudaQueue& queue) {
  const int64_t stride = ceil_div<int64_t>(d, 4) * 4;
  float* out = queue.take<float>(rows * stride);
  queue_unit_rows(features, dtype, rows, d, normalize, stride, out, queue);
  return {out, stride};
}

}  // namespace patchcut
