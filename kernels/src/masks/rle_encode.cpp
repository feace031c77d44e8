#include "masks/rle_encode.h"

#include "c_api/c_face.h"

using namespace patchcut;

namespace {

constexpr const char* kOp = "rle_encode";

template <class Pixel>
void check(const Pixel* image, const char* name, int64_t batch, int64_t height, int64_t width, int64_t items,
           int64_t capacity, uint32_t* runs, int64_t* offsets) {
  require_sizes(kOp, {batch, height, width});
  require_sizes(kOp, {items});
  require_sizes(kOp, {capacity});
  require(height == 0 || width < INT32_MAX / height, kOp, "a mask must have fewer than 2^31 - 1 pixels");
  Arrays arrays(kOp);
  arrays.input(name, image, batch * height * width);
  arrays.output("runs", runs, capacity);
  arrays.output("offsets", offsets, items + 1);
}

}  // namespace

patchcut_status patchcut_rle_encode(const uint8_t* masks, int64_t batch, int64_t height, int64_t width,
                                    int64_t capacity, uint32_t* runs, int64_t* offsets,
                                    const patchcut_context* context) {
  return guard_op(context, [&] {
    check(masks, "masks", batch, height, width, batch, capacity, runs, offsets);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        rle_encode_cuda(masks, batch, height, width, {capacity, runs, offsets}, queue);
      });
    }
    offsets[0] = 0;
    rle_encode_cpu(masks, batch, height, width, {capacity, runs, offsets});
  });
}

patchcut_status patchcut_rle_encode_ids(const int32_t* ids, int64_t batch, int64_t height, int64_t width,
                                        int64_t count, int64_t capacity, uint32_t* runs, int64_t* offsets,
                                        const patchcut_context* context) {
  return guard_op(context, [&] {
    require_sizes(kOp, {batch, count});
    require_sizes(kOp, {batch, height, width});
    require_ids(kOp, count, height * width);
    check(ids, "ids", batch, height, width, batch * count, capacity, runs, offsets);
    if (on_cuda(kOp, context)) {
      return run_on_cuda(kOp, *context, [&](CudaQueue& queue) {
        rle_encode_ids_cuda(ids, batch, height, width, count, {capacity, runs, offsets}, queue);
      });
    }
    offsets[0] = 0;
    for (int64_t b = 0; b < batch; ++b) {
      rle_encode_ids_cpu(ids + b * height * width, height, width, count,
                         {capacity, runs, offsets + b * count});
    }
  });
}

patchcut_status patchcut_rle_write_text(const uint32_t* runs, int64_t count, char* text, int64_t* length) {
  return guard([&] {
    require_sizes(kOp, {count});
    Arrays arrays(kOp);
    arrays.input("runs", runs, count);
    arrays.output("text", text, count * kRleLetters);
    arrays.output("length", length, 1);
    *length = rle_write_text(runs, count, text);
  });
}
