#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/interrupt.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "masks/rle_encode.h"

namespace patchcut {
namespace {

constexpr int64_t kWordBits = 64;

// A bit for each pixel in the order of the runs: set where a pixel differs from the one before, the first one
// from 0. Each column starts a word.
struct Changes {
  int64_t height;
  int64_t width;
  int64_t column_words;
  uint64_t* words;  // [width, column_words]

  int64_t size() const { return width * column_words; }
};

int64_t words_of(int64_t height) { return (height + kWordBits - 1) / kWordBits; }

// Eight bytes, 1 where a byte is not 0.
uint64_t truth_of(uint64_t bytes) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
  return ((((bytes & kLow) + kLow) | bytes) & ~kLow) >> 7;
}

// Bit i is byte i of eight bytes that are 0 or 1.
uint64_t bits_of(uint64_t bytes) { return (bytes * 0x0102040810204080) >> 56; }

uint64_t load_word(const uint8_t* source) {
  uint64_t word;
  std::memcpy(&word, source, sizeof(word));
  return word;
}

// Bit i is set where one of the pixels i is 0 and the other is not; count is at most 64.
uint64_t differing(const uint8_t* row, const uint8_t* above, int64_t count) {
  uint64_t bits = 0;
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    bits |= bits_of(truth_of(load_word(row + i)) ^ truth_of(load_word(above + i))) << i;
  }
  for (; i < count; ++i) bits |= static_cast<uint64_t>((row[i] != 0) != (above[i] != 0)) << i;
  return bits;
}

uint64_t differing(const int32_t* row, const int32_t* above, int64_t count) {
  uint64_t bits = 0;
  for (int64_t i = 0; i < count; ++i) bits |= static_cast<uint64_t>(row[i] != above[i]) << i;
  return bits;
}

constexpr int64_t kStepBytes = 64;

// Whether a step of both rows is the same, as most are.
bool same_step(const void* row, const void* above) {
  uint64_t a[kStepBytes / 8];
  uint64_t b[kStepBytes / 8];
  std::memcpy(a, row, kStepBytes);
  std::memcpy(b, above, kStepBytes);
  uint64_t differ = 0;
  for (int i = 0; i < kStepBytes / 8; ++i) differ |= a[i] ^ b[i];
  return differ == 0;
}

// Calls mark(x) where the rows differ.
template <class Pixel, class Mark>
void compare_rows(const Pixel* row, const Pixel* above, int64_t width, const Mark& mark) {
  constexpr int64_t kStep = kStepBytes / static_cast<int64_t>(sizeof(Pixel));
  for (int64_t x = 0; x < width; x += kStep) {
    const bool whole = x + kStep <= width;
    if (whole && same_step(row + x, above + x)) continue;
    uint64_t bits = differing(row + x, above + x, whole ? kStep : width - x);
    for (; bits != 0; bits &= bits - 1) mark(x + __builtin_ctzll(bits));
  }
}

// The changes of the rows of one word of every column; returns how many.
template <class Pixel>
int64_t find_changes(const Pixel* image, int64_t word, const Changes& changes) {
  Scratch scratch;
  Pixel* before_first = scratch.take<Pixel>(changes.width);
  const int64_t end = std::min(changes.height, (word + 1) * kWordBits);
  int64_t count = 0;
  for (int64_t x = 0; x < changes.width; ++x) changes.words[x * changes.column_words + word] = 0;
  for (int64_t y = word * kWordBits; y < end; ++y) {
    const Pixel* row = image + y * changes.width;
    const Pixel* above = row - changes.width;
    if (y == 0) {
      // Before the first pixel of a column comes the last one of the column to the left.
      before_first[0] = 0;
      std::copy_n(image + (changes.height - 1) * changes.width, changes.width - 1, before_first + 1);
      above = before_first;
    }
    const uint64_t bit = uint64_t{1} << (y % kWordBits);
    compare_rows(row, above, changes.width, [&](int64_t x) {
      changes.words[x * changes.column_words + word] |= bit;
      ++count;
    });
  }
  return count;
}

// Calls visit(x, y) for each change, in the order of the runs.
template <class Visit>
void visit_changes(const Changes& changes, const Visit& visit) {
  InterruptPoll poll;
  for (int64_t x = 0; x < changes.width; ++x) {
    poll.spend(changes.height);
    const uint64_t* column = changes.words + x * changes.column_words;
    for (int64_t w = 0; w < changes.column_words; ++w) {
      for (uint64_t bits = column[w]; bits != 0; bits &= bits - 1) {
        visit(x, w * kWordBits + __builtin_ctzll(bits));
      }
    }
  }
}

void write_runs(const Changes& changes, uint32_t* runs) {
  int64_t last = 0;
  visit_changes(changes, [&](int64_t x, int64_t y) {
    const int64_t at = x * changes.height + y;
    *runs++ = static_cast<uint32_t>(at - last);
    last = at;
  });
  *runs = static_cast<uint32_t>(changes.height * changes.width - last);
}

// A group of masks is searched before it is written, so that memory does not grow with their number.
void encode_group(const uint8_t* masks, int64_t count, int64_t height, int64_t width, int64_t* offsets,
                  const RunLengths& out) {
  Scratch scratch;
  const Changes first{height, width, words_of(height), nullptr};
  uint64_t* words = scratch.take<uint64_t>(count * first.size());
  const auto changes_of = [&](int64_t i) {
    return Changes{height, width, first.column_words, words + i * first.size()};
  };
  parallel_for(count, height * width / 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Changes changes = changes_of(i);
      offsets[i + 1] = 1;
      InterruptPoll poll;
      for (int64_t w = 0; w < changes.column_words; ++w) {
        poll.spend(width * kWordBits);
        offsets[i + 1] += find_changes(masks + i * height * width, w, changes);
      }
    }
  });
  for (int64_t i = 0; i < count; ++i) offsets[i + 1] += offsets[i];
  if (offsets[count] > out.capacity) return;
  parallel_for(count, height * width / 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) write_runs(changes_of(i), out.runs + offsets[i]);
  });
}

struct IdMap {
  const int32_t* ids;  // [height, width]
  int64_t height;
  int64_t width;
  int64_t count;

  int32_t before(int64_t x, int64_t y) const {
    if (y > 0) return ids[(y - 1) * width + x];
    return x > 0 ? ids[(height - 1) * width + x - 1] : 0;
  }
};

// Calls visit(id, position) for each change of each id's own mask, in the order of the runs.
template <class Visit>
void visit_ids(const IdMap& map, const Changes& changes, const Visit& visit) {
  visit_changes(changes, [&](int64_t x, int64_t y) {
    const int32_t left = map.before(x, y);
    const int32_t entered = map.ids[y * map.width + x];
    if (entered < 0 || entered > map.count) {
      throw std::invalid_argument("[rle_encode] ids must be in [0, " + std::to_string(map.count) + "], got " +
                                  std::to_string(entered));
    }
    if (left != 0) visit(left - 1, x * map.height + y);
    if (entered != 0) visit(entered - 1, x * map.height + y);
  });
}

void write_id_runs(const IdMap& map, const Changes& changes, const RunLengths& out) {
  Scratch scratch;
  int64_t* next = scratch.take<int64_t>(map.count);
  int64_t* last = scratch.take<int64_t>(map.count);
  std::copy_n(out.offsets, map.count, next);
  std::fill_n(last, map.count, 0);
  const auto write = [&](int64_t id, int64_t at) {
    out.runs[next[id]++] = static_cast<uint32_t>(at - last[id]);
    last[id] = at;
  };
  visit_ids(map, changes, write);
  for (int64_t id = 0; id < map.count; ++id) write(id, map.height * map.width);
}

}  // namespace

void rle_encode_cpu(const uint8_t* masks, int64_t batch, int64_t height, int64_t width,
                    const RunLengths& out) {
  constexpr int64_t kGroup = 16;
  for (int64_t first = 0; first < batch; first += kGroup) {
    encode_group(masks + first * height * width, std::min(kGroup, batch - first), height, width,
                 out.offsets + first, out);
  }
}

void rle_encode_ids_cpu(const int32_t* ids, int64_t height, int64_t width, int64_t count,
                        const RunLengths& out) {
  Scratch scratch;
  const IdMap map{ids, height, width, count};
  const int64_t column_words = words_of(height);
  const Changes changes{height, width, column_words, scratch.take<uint64_t>(width * column_words)};
  parallel_for(column_words, kWordBits * width, [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w) find_changes(ids, w, changes);
  });
  std::fill_n(out.offsets + 1, count, 1);
  visit_ids(map, changes, [&](int64_t id, int64_t) { ++out.offsets[id + 1]; });
  for (int64_t id = 0; id < count; ++id) out.offsets[id + 1] += out.offsets[id];
  if (out.offsets[count] <= out.capacity) write_id_runs(map, changes, out);
}

int64_t rle_write_text(const uint32_t* runs, int64_t count, char* text) {
  char* at = text;
  for (int64_t i = 0; i < count; ++i) {
    // From the fourth run on, the difference to the run of the same colour before.
    int64_t value = static_cast<int64_t>(runs[i]) - (i > 2 ? static_cast<int64_t>(runs[i - 2]) : 0);
    bool more = true;
    while (more) {
      const int64_t group = value & 0x1f;
      value >>= 5;
      more = value != ((group & 0x10) != 0 ? -1 : 0);
      *at++ = static_cast<char>(48 + group + (more ? 0x20 : 0));
    }
  }
  return at - text;
}

}  // namespace patchcut
