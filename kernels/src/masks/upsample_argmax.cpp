#include "masks/upsample_argmax.h"

#include "c_api/c_face.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "upsample_argmax";

}  // namespace

patchcut_status patchcut_upsample_argmax(const float* assignment, int64_t batch, int64_t grid_height,
                                         int64_t grid_width, int64_t k, int64_t height, int64_t width,
                                         int32_t* labels, float* confidence,
                                         const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, grid_height, grid_width, k});
    require_sizes(kOp, {batch, height, width});
    require(height == 0 || width < INT32_MAX / height, kOp,
            "a label map must have fewer than 2^31 - 1 pixels");
    require(grid_height > 0 && grid_width > 0 && k > 0, kOp, "the grid and k must be at least 1");
    Arrays arrays(kOp);
    arrays.input("assignment", assignment, batch * grid_height * grid_width * k);
    arrays.output("labels", labels, batch * height * width);
    arrays.optional_output("confidence", confidence, batch * height * width);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        upsample_argmax_cuda(assignment, batch, grid_height, grid_width, k, height, width, labels, confidence,
                             queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      upsample_argmax_cpu(assignment + b * grid_height * grid_width * k, grid_height, grid_width, k, height,
                          width, labels + b * height * width,
                          confidence == nullptr ? nullptr : confidence + b * height * width);
    }
  });
}
