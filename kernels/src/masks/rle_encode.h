#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

// Run lengths down the columns, from left to right, those of zeros first; that of an item that begins with a
// one begins with 0. Those of item i are [offsets[i], offsets[i + 1]) of `runs`. Where the last offset is
// above `capacity`, `runs` holds nothing of use: call again with that much room.
struct RunLengths {
  int64_t capacity;
  uint32_t* runs;    // [capacity]
  int64_t* offsets;  // [items + 1]; on the CPU the first is read, on CUDA all are written
};

// Items are masks. height * width must be below 2^31.
void rle_encode_cpu(const uint8_t* masks,  // [batch, height, width], not 0 is inside
                    int64_t batch, int64_t height, int64_t width, const RunLengths& out);

// Items are the ids 1 to count of one map, each as the mask of the pixels that have it. Throws
// std::invalid_argument where an id is not in [0, count].
void rle_encode_ids_cpu(const int32_t* ids,  // [height, width]
                        int64_t height, int64_t width, int64_t count, const RunLengths& out);

// Of a batch; arrays lie on the queue's device, see rle_encode_cpu. All of `runs` is written: with 0 after
// the last one.
void rle_encode_cuda(const uint8_t* masks, int64_t batch, int64_t height, int64_t width,
                     const RunLengths& out, CudaQueue& queue);

// The same, see rle_encode_ids_cpu: items are the ids of each map in turn. Pixels of other ids are left out.
void rle_encode_ids_cuda(const int32_t* ids, int64_t batch, int64_t height, int64_t width, int64_t count,
                         const RunLengths& out, CudaQueue& queue);

// Letters that a run takes at most.
constexpr int64_t kRleLetters = 7;

// COCO's text of the runs of one item; returns its length, at most kRleLetters * count.
int64_t rle_write_text(const uint32_t* runs, int64_t count, char* text);

}  // namespace patchcut
