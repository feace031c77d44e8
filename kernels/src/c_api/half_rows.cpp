#include "c_api/half_rows.h"

#include <atomic>

#include "cpu/simd.h"
#include "cpu/thread_pool.h"
#include "patchcut/patchcut.h"

namespace patchcut {
namespace {

constexpr int64_t kCyclesPerHalf = 1;

}  // namespace

FloatRows::FloatRows(const void* data, int32_t dtype, int64_t first, int64_t count) {
  if (dtype == PATCHCUT_FLOAT32) {
    data_ = static_cast<const float*>(data) + first;
    return;
  }
  const uint16_t* halves = static_cast<const uint16_t*>(data) + first;
  float* copy = scratch_.take<float>(count);
  const SimdTable& table = simd();
  parallel_for(count, kCyclesPerHalf, [&](int64_t begin, int64_t end) {
    table.half_to_float(end - begin, halves + begin, copy + begin);
  });
  data_ = copy;
}

FloatResult::FloatResult(void* data, int32_t dtype, int64_t first, int64_t count)
    : halves_(nullptr), count_(count) {
  if (dtype == PATCHCUT_FLOAT32) {
    data_ = static_cast<float*>(data) + first;
    return;
  }
  halves_ = static_cast<uint16_t*>(data) + first;
  data_ = scratch_.take<float>(count);
}

bool FloatResult::store() {
  if (halves_ == nullptr) return true;
  const SimdTable& table = simd();
  std::atomic<bool> finite{true};
  parallel_for(count_, kCyclesPerHalf, [&](int64_t begin, int64_t end) {
    if (!table.float_to_half(end - begin, data_ + begin, halves_ + begin)) {
      finite.store(false, std::memory_order_relaxed);
    }
  });
  return finite;
}

}  // namespace patchcut
