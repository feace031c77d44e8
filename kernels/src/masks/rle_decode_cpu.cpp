#include <algorithm>
#include <stdexcept>
#include <string>

#include "cpu/interrupt.h"
#include "cpu/thread_pool.h"
#include "masks/rle_decode.h"
#include "masks/rle_encode.h"

namespace patchcut {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("[rle_decode] " + what); }

void require_sum(const uint32_t* runs, int64_t count, int64_t item, int64_t pixels) {
  int64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += runs[i];
  if (sum != pixels) {
    refuse("counts of item " + std::to_string(item) + " must sum to " + std::to_string(pixels) +
           " pixels, got " + std::to_string(sum));
  }
}

// Nothing is looked for between runs: it would take a fifth of the time of all.
constexpr int64_t kRowsOfPoll = 64;

// Row 0 as it is, and below it a 1 where a pixel differs from the one above.
void mark_changes(const uint32_t* runs, int64_t count, int64_t height, int64_t width, uint8_t* mask) {
  int64_t begin = 0;
  uint8_t before = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (runs[i] == 0) continue;
    const uint8_t value = i % 2;
    const int64_t end = begin + runs[i];
    const int64_t x = begin / height;
    const int64_t y = begin % height;
    if (y > 0) mask[y * width + x] = value ^ before;
    for (int64_t column = x + (y > 0); column * height < end; ++column) mask[column] = value;
    before = value;
    begin = end;
  }
}

void add_row(const uint8_t* __restrict above, int64_t width, uint8_t* __restrict row) {
  for (int64_t x = 0; x < width; ++x) row[x] ^= above[x];
}

// Runs go down the columns; only their ends are written that way, the rest in whole rows.
void decode(const uint32_t* runs, int64_t count, int64_t height, int64_t width, uint8_t* mask) {
  std::fill_n(mask, height * width, uint8_t{0});
  mark_changes(runs, count, height, width, mask);
  InterruptPoll poll;
  for (int64_t y = 1; y < height;) {
    poll.spend(kRowsOfPoll * width);
    const int64_t end = std::min(height, y + kRowsOfPoll);
    for (; y < end; ++y) add_row(mask + (y - 1) * width, width, mask + y * width);
  }
}

// One run of the text at `at`, which moves past it.
int64_t read_value(const char* text, int64_t length, int64_t* at) {
  int64_t value = 0;
  for (int shift = 0; shift < 5 * kRleLetters; shift += 5) {
    if (*at == length) refuse("counts end within a number");
    const int letter = static_cast<unsigned char>(text[(*at)++]) - 48;
    if (letter < 0 || letter > 0x3f) refuse("counts must be letters of COCO's text, from '0' to 'o'");
    value |= static_cast<int64_t>(letter & 0x1f) << shift;
    if ((letter & 0x20) != 0) continue;
    return (letter & 0x10) != 0 ? value - (int64_t{1} << (shift + 5)) : value;
  }
  refuse("counts hold a number of more than 7 letters");
}

}  // namespace

void rle_decode_cpu(const uint32_t* runs, const int64_t* offsets, int64_t batch, int64_t height,
                    int64_t width, uint8_t* masks) {
  const int64_t pixels = height * width;
  for (int64_t i = 0; i < batch; ++i) {
    require_sum(runs + offsets[i], offsets[i + 1] - offsets[i], i, pixels);
  }
  parallel_for(batch, pixels / 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      decode(runs + offsets[i], offsets[i + 1] - offsets[i], height, width, masks + i * pixels);
    }
  });
}

int64_t rle_read_text(const char* text, int64_t length, uint32_t* runs) {
  int64_t count = 0;
  for (int64_t at = 0; at < length; ++count) {
    int64_t run = read_value(text, length, &at);
    if (count > 2) run += runs[count - 2];
    if (run < 0 || run > UINT32_MAX) refuse("counts hold a run of " + std::to_string(run) + " pixels");
    runs[count] = static_cast<uint32_t>(run);
  }
  return count;
}

}  // namespace patchcut
