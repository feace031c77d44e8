#include "cuts/bipartition.h"

#include "c_api/c_face.h"
#include "c_api/half_rows.h"
#include "cuts/ncut.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "bipartition";

}  // namespace

patchcut_status patchcut_bipartition(const void* features, int32_t dtype, int64_t batch, int64_t grid_height,
                                     int64_t grid_width, int64_t d, int32_t connected, const float* start,
                                     const patchcut_ncut_params* params, uint8_t* masks, int32_t* seeds,
                                     float* vectors, const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {grid_height, grid_width});
    const int64_t n = grid_height * grid_width;
    require(n < INT32_MAX, kOp, "a grid must have fewer than 2^31 - 1 patches");
    check_cut(kOp, params, batch, n, d, 1);
    require_dtype(kOp, "dtype", dtype);
    Arrays arrays(kOp);
    arrays.input("features", features, batch * n * d, dtype);
    arrays.optional_input("start", start, batch * n);
    arrays.output("masks", masks, batch * n);
    arrays.output("seeds", seeds, batch);
    arrays.optional_output("vectors", vectors, batch * n);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        bipartition_cuda(features, dtype, batch, grid_height, grid_width, d, start, *params, connected != 0,
                         masks, seeds, vectors, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const FloatRows item(features, dtype, b * n * d, n * d);
      bipartition_cpu(item.data(), grid_height, grid_width, d, start == nullptr ? nullptr : start + b * n,
                      *params, connected != 0, masks + b * n, seeds + b,
                      vectors == nullptr ? nullptr : vectors + b * n);
    }
  });
}
