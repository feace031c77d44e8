#include "video/propagate.h"

#include <cmath>

#include "c_api/c_face.h"
#include "c_api/half_rows.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "propagate";
constexpr int64_t kMostPatches = 1 << 30;  // of a memory: places in it are int32
constexpr int64_t kMostKept = 64;

void check(const patchcut_propagate_params* params) {
  require_struct(kOp, "params", params);
  require(params->radius >= 0, kOp, "radius must be at least 0, got " + std::to_string(params->radius));
  require(params->topk >= 1 && params->topk <= kMostKept, kOp,
          "topk must be 1 to 64, got " + std::to_string(params->topk));
  require(params->temperature > 0 && std::isfinite(1 / params->temperature), kOp,
          "temperature must be above 0, with a finite inverse");
}

}  // namespace

patchcut_status patchcut_propagate(const void* features, int32_t dtype, const void* memory,
                                   int32_t memory_dtype, const float* values, int64_t batch, int64_t slots,
                                   int64_t frames, int64_t grid_height, int64_t grid_width, int64_t d,
                                   int64_t c, const patchcut_propagate_params* params, float* out,
                                   const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, slots, grid_height, grid_width, d});
    require_sizes(kOp, {batch, slots, grid_height, grid_width, c});
    require_sizes(kOp, {batch, grid_height, grid_width, d});
    require_sizes(kOp, {batch, grid_height, grid_width, c});
    require(d > 0, kOp, "features must have at least one column");
    require(slots * grid_height * grid_width <= kMostPatches, kOp, "memory must hold at most 2^30 patches");
    require(frames >= 1 && frames <= slots, kOp,
            "frames must be 1 to the " + std::to_string(slots) + " slots of the memory, got " +
                std::to_string(frames));
    require_dtype(kOp, "dtype", dtype);
    require_dtype(kOp, "memory_dtype", memory_dtype);
    const MemoryShape shape{slots, frames, grid_height, grid_width, d, c};
    const int64_t n = shape.nodes();
    Arrays arrays(kOp);
    arrays.input("features", features, batch * n * d, dtype);
    arrays.input("memory", memory, batch * slots * n * d, memory_dtype);
    arrays.input("values", values, batch * slots * n * c);
    arrays.output("out", out, batch * n * c);
    check(params);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        propagate_cuda(features, dtype, memory, memory_dtype, values, batch, shape, *params, out, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const FloatRows item(features, dtype, b * n * d, n * d);
      const FloatRows kept(memory, memory_dtype, b * slots * n * d, frames * n * d);
      propagate_cpu(item.data(), kept.data(), values + b * slots * n * c, shape, *params, out + b * n * c);
    }
  });
}
