#include "masks/region_stats.h"

#include "c_api/c_face.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "region_stats";

}  // namespace

patchcut_status patchcut_region_stats(const int32_t* ids, const int32_t* label_map, const float* confidence,
                                      int64_t batch, int64_t height, int64_t width, int64_t count,
                                      int64_t* area, float* boxes_xyxy, float* mean_confidence,
                                      int32_t* label, const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, height, width});
    require_sizes(kOp, {batch, count, 4});
    const int64_t pixels = height * width;
    require_ids(kOp, count, pixels);
    Arrays arrays(kOp);
    arrays.input("ids", ids, batch * pixels);
    arrays.input("label_map", label_map, label == nullptr ? 0 : batch * pixels);
    arrays.input("confidence", confidence, mean_confidence == nullptr ? 0 : batch * pixels);
    arrays.output("area", area, batch * count);
    arrays.output("boxes_xyxy", boxes_xyxy, batch * count * 4);
    arrays.optional_output("mean_confidence", mean_confidence, batch * count);
    arrays.optional_output("label", label, batch * count);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        region_stats_cuda(ids, label_map, confidence, batch, height, width, count,
                          {area, boxes_xyxy, mean_confidence, label}, queue);
      });
    }
    for (int64_t b = 0; b < batch; ++b) {
      const RegionArrays regions{area + b * count, boxes_xyxy + 4 * b * count,
                                 mean_confidence == nullptr ? nullptr : mean_confidence + b * count,
                                 label == nullptr ? nullptr : label + b * count};
      region_stats_cpu(ids + b * pixels, label == nullptr ? nullptr : label_map + b * pixels,
                       mean_confidence == nullptr ? nullptr : confidence + b * pixels, height, width, count,
                       regions);
    }
  });
}
