#include "masks/rle_decode.h"

#include <algorithm>

#include "c_api/c_face.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "rle_decode";

}  // namespace

patchcut_status patchcut_rle_decode(const uint32_t* runs, const int64_t* offsets, int64_t batch,
                                    int64_t height, int64_t width, int64_t capacity, uint8_t* masks,
                                    const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, height, width});
    require_sizes(kOp, {capacity});
    require(height == 0 || width < INT32_MAX / height, kOp, "a mask must have fewer than 2^31 - 1 pixels");
    Arrays arrays(kOp);
    arrays.input("runs", runs, capacity);
    arrays.input("offsets", offsets, batch + 1);
    arrays.output("masks", masks, batch * height * width);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        rle_decode_cuda(runs, offsets, batch, height, width, capacity, masks, queue);
      });
    }
    require(std::is_sorted(offsets, offsets + batch + 1) && offsets[0] >= 0 && offsets[batch] <= capacity,
            kOp, "offsets must be 0 to " + std::to_string(capacity) + ", the capacity, and never fall");
    rle_decode_cpu(runs, offsets, batch, height, width, masks);
  });
}

patchcut_status patchcut_rle_read_text(const char* text, int64_t length, uint32_t* runs, int64_t* count) {
  return guard([&] {
    require_sizes(kOp, {length});
    Arrays arrays(kOp);
    arrays.input("text", text, length);
    arrays.output("runs", runs, length);
    arrays.output("count", count, 1);
    *count = rle_read_text(text, length, runs);
  });
}
