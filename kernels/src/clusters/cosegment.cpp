#include "clusters/cosegment.h"

#include <limits>

#include "c_api/c_face.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "cosegment";
constexpr int64_t kMostPatches = std::numeric_limits<int32_t>::max();

}  // namespace

patchcut_status patchcut_cosegment(const void* features, int32_t dtype, int64_t n, int64_t d, int64_t k,
                                   const int64_t* offsets, const float* weights, float* scores,
                                   int32_t* seeds, float* embedding, const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {n, d});
    require_sizes(kOp, {n, k});
    require(d > 0, kOp, "features must have at least one column");
    require(n <= kMostPatches && k < kMostPatches, kOp, "features must hold fewer than 2^31 patches");
    require(offsets != nullptr || (k == 0 ? n == 0 : n % k == 0), kOp,
            "n must be a multiple of k without offsets, got " + std::to_string(n) + " patches of " +
                std::to_string(k) + " images");
    require_dtype(kOp, "dtype", dtype);
    Arrays arrays(kOp);
    arrays.input("features", features, n * d, dtype);
    arrays.optional_input("offsets", offsets, k + 1);
    arrays.optional_input("weights", weights, n);
    arrays.output("scores", scores, n);
    arrays.output("seeds", seeds, k);
    arrays.output("embedding", embedding, d);
    const ImagePatches patches{n, d, k, offsets};
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        cosegment_cuda(features, dtype, patches, weights, scores, seeds, embedding, queue);
      });
    }
    cosegment_cpu(features, dtype, patches, weights, scores, seeds, embedding);
  });
}
