#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

// Throws std::invalid_argument where the runs of an item do not sum to height * width.
void rle_decode_cpu(const uint32_t* runs,    // those of item i are [offsets[i], offsets[i + 1])
                    const int64_t* offsets,  // [batch + 1]
                    int64_t batch, int64_t height, int64_t width,
                    uint8_t* masks);  // [batch, height, width], 0 or 1

// Arrays lie on the queue's device, see rle_decode_cpu. Runs are taken from [0, capacity) alone; pixels
// after the last run of an item are 0.
void rle_decode_cuda(const uint32_t* runs, const int64_t* offsets, int64_t batch, int64_t height,
                     int64_t width, int64_t capacity, uint8_t* masks, CudaQueue& queue);

// The runs of COCO's text of one item; returns how many, at most `length`. Throws std::invalid_argument where
// the text is not COCO's.
int64_t rle_read_text(const char* text, int64_t length, uint32_t* runs);

}  // namespace patchcut
