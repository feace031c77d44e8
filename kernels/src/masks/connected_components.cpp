#include "masks/connected_components.h"

#include "c_api/c_face.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "connected_components";

}  // namespace

patchcut_status patchcut_connected_components(const int32_t* label_map, int64_t batch, int64_t height,
                                              int64_t width, int32_t connectivity, int64_t min_area,
                                              int32_t* ids, int32_t* kept_labels, int32_t* counts,
                                              const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, height, width});
    const int64_t pixels = height * width;
    require(pixels < INT32_MAX, kOp, "a label map must have fewer than 2^31 - 1 pixels");
    require(connectivity == 4 || connectivity == 8, kOp,
            "connectivity must be 4 or 8, got " + std::to_string(connectivity));
    require(min_area >= 1, kOp, "min_area must be at least 1, got " + std::to_string(min_area));
    Arrays arrays(kOp);
    arrays.input("label_map", label_map, batch * pixels);
    arrays.output("ids", ids, batch * pixels, {"label_map"});
    arrays.optional_output("kept_labels", kept_labels, batch * pixels, {"label_map"});
    arrays.output("counts", counts, batch);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        connected_components_cuda(label_map, batch, height, width, connectivity == 8, min_area, ids,
                                  kept_labels, counts, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t first = b * pixels;
      counts[b] = static_cast<int32_t>(
          connected_components_cpu(label_map + first, height, width, connectivity == 8, min_area, ids + first,
                                   kept_labels == nullptr ? nullptr : kept_labels + first));
    }
  });
}
