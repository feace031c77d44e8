#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>

#include "cpu/runs.h"
#include "cpu/thread_pool.h"
#include "masks/relabel.h"

namespace patchcut {
namespace {

struct Job {
  int64_t width;
  const int32_t* table;
  int64_t count;
};

// Returns the first label that the table does not hold, or null. Runs that keep their name are not written in
// place: most of a map is background.
const int32_t* relabel_row(const Job& job, const int32_t* row, int32_t* out) {
  for (int64_t x = 0, end = 0; x < job.width; x = end) {
    end = run_end(row, x, job.width);
    const int32_t label = row[x];
    if (label < 0 || label >= job.count) return row + x;
    const int32_t name = job.table[label];
    if (row != out || name != label) std::fill(out + x, out + end, name);
  }
  return nullptr;
}

}  // namespace

void relabel_cpu(const int32_t* labels, int64_t height, int64_t width, const int32_t* table, int64_t count,
                 int32_t* out) {
  const Job job{width, table, count};
  std::atomic<const int32_t*> unknown{nullptr};
  parallel_for(height, width, [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      const int32_t* found = relabel_row(job, labels + y * width, out + y * width);
      if (found != nullptr) unknown.store(found, std::memory_order_relaxed);
    }
  });
  if (unknown.load() != nullptr) {
    throw std::invalid_argument("[relabel] labels must be in [0, " + std::to_string(count - 1) + "], got " +
                                std::to_string(*unknown.load()));
  }
}

}  // namespace patchcut
