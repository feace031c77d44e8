#include "half_rows.h"

#include <cstring>
#include <string>

#include "c_face.h"

namespace patchcut {
namespace {

float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  uint32_t bits = (magnitude << 13) + (112u << 23);  // the exponent's bias is 15 there, 127 here
  if (magnitude >= 0x7c00u) bits += 112u << 23;      // infinities and NaN
  float value = 0;
  std::memcpy(&value, &bits, sizeof(value));
  if (magnitude < 0x0400u) value = static_cast<float>(magnitude) * 0x1p-24f;
  std::memcpy(&bits, &value, sizeof(bits));
  bits |= sign;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// To the nearest, ties to even.
uint16_t to_half(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return sign | 0x7e00u;
  if (bits >= 0x477ff000u) return sign | 0x7c00u;  // 65520 and above
  if (bits < 0x38800000u) {                        // subnormal halves: adding 0.5 rounds at 2^-24
    float magnitude = 0;
    std::memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, sizeof(bits));
    return sign | static_cast<uint16_t>(bits - 0x3f000000u);
  }
  bits -= 112u << 23;
  return sign | static_cast<uint16_t>((bits + 0x0fffu + ((bits >> 13) & 1u)) >> 13);
}

void require_dtype(const char* op, int32_t dtype) {
  require(dtype == PATCHCUT_FLOAT32 || dtype == PATCHCUT_FLOAT16, op,
          "dtype must be PATCHCUT_FLOAT32 or PATCHCUT_FLOAT16, got " + std::to_string(dtype));
}

}  // namespace

FloatRows::FloatRows(const char* op, const void* data, int32_t dtype, int64_t first, int64_t count) {
  require_dtype(op, dtype);
  if (dtype == PATCHCUT_FLOAT32) {
    data_ = static_cast<const float*>(data) + first;
    return;
  }
  const uint16_t* halves = static_cast<const uint16_t*>(data) + first;
  float* copy = scratch_.take<float>(count);
  for (int64_t i = 0; i < count; ++i) copy[i] = from_half(halves[i]);
  data_ = copy;
}

FloatResult::FloatResult(const char* op, void* data, int32_t dtype, int64_t first, int64_t count)
    : halves_(nullptr), count_(count) {
  require_dtype(op, dtype);
  if (dtype == PATCHCUT_FLOAT32) {
    data_ = static_cast<float*>(data) + first;
    return;
  }
  halves_ = static_cast<uint16_t*>(data) + first;
  data_ = scratch_.take<float>(count);
}

void FloatResult::store() {
  if (halves_ == nullptr) return;
  for (int64_t i = 0; i < count_; ++i) halves_[i] = to_half(data_[i]);
}

}  // namespace patchcut
