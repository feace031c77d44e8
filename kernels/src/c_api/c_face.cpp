#include "c_api/c_face.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "cpu/per_thread.h"

namespace patchcut {
namespace {

// Memory for the text may be what there is none of.
thread_local const char* last_error = "";

}  // namespace

patchcut_status fail(patchcut_status status, const char* text) noexcept {
  try {
    std::string& kept = PerThread<std::string>::get();
    kept = text;
    last_error = kept.c_str();
  } catch (...) {
    last_error = status == PATCHCUT_OUT_OF_MEMORY ? kNoMemory : "memory ran out for the text of an error";
  }
  return status;
}

bool on_cuda(const char* op, const patchcut_context* context) {
  if (context == nullptr || context->device_type == PATCHCUT_CPU) return false;
  require(context->device_type == PATCHCUT_CUDA, op,
          "context must name PATCHCUT_CPU or PATCHCUT_CUDA, got device type " +
              std::to_string(context->device_type));
  return true;
}

void require_sizes(const char* op, std::initializer_list<int64_t> sizes) {
  int64_t room = std::numeric_limits<int64_t>::max() / 8;
  for (const int64_t size : sizes) {
    require(size >= 0, op, "sizes must be at least 0, got " + std::to_string(size));
    if (size == 0) continue;
    room /= size;
    require(room > 0, op, "sizes must fit memory, got a product above 2^60");
  }
}

void Arrays::add(const Array& array, std::initializer_list<const char*> may_be) {
  if (array.count == 0) return;
  if (array.data == nullptr) require(false, op_, std::string(array.name) + " must not be null");
  if (reinterpret_cast<uintptr_t>(array.data) % array.bytes != 0) {
    require(false, op_,
            std::string(array.name) + " must be aligned: its address must be a multiple of " +
                std::to_string(array.bytes));
  }
  for (int i = 0; i < count_; ++i) require_apart(array, arrays_[i], may_be);
  if (count_ == kMost) throw std::logic_error("an op has more arrays than Arrays holds");
  arrays_[count_++] = array;
}

void Arrays::require_apart(const Array& array, const Array& other,
                           std::initializer_list<const char*> may_be) const {
  if (!array.written && !other.written) return;
  const auto begin = reinterpret_cast<uintptr_t>(array.data);
  const auto other_begin = reinterpret_cast<uintptr_t>(other.data);
  const uintptr_t end = begin + static_cast<uintptr_t>(array.count) * array.bytes;
  const uintptr_t other_end = other_begin + static_cast<uintptr_t>(other.count) * other.bytes;
  if (end <= other_begin || other_end <= begin) return;
  for (const char* name : may_be) {
    if (std::strcmp(name, other.name) == 0 && begin == other_begin && end == other_end) return;
  }
  require(false, op_, std::string(array.name) + " must not overlap " + other.name + ", got memory of both");
}

void require_rounds(const char* op, const char* name, int64_t rounds, int64_t least) {
  require(
      rounds >= least && rounds <= kMostRounds, op,
      std::string(name) + " must be " + std::to_string(least) + " to 65536, got " + std::to_string(rounds));
}

void require_ids(const char* op, int64_t count, int64_t pixels) {
  constexpr int64_t kOfSmallMaps = 65536;
  require(count <= std::max(pixels, kOfSmallMaps), op,
          "count must be at most the " + std::to_string(pixels) + " pixels of a map, or 65536, got " +
              std::to_string(count));
}

void require_dtype(const char* op, const char* name, int32_t dtype) {
  require(dtype == PATCHCUT_FLOAT32 || dtype == PATCHCUT_FLOAT16, op,
          std::string(name) + " must be PATCHCUT_FLOAT32 or PATCHCUT_FLOAT16, got " + std::to_string(dtype));
}

void throw_without_cuda(const char* op) {
  throw Unavailable(
      "[" + std::string(op) +
      "] arrays on CUDA need a build with CUDA: pip install -C cmake.define.PATCHCUT_CUDA=ON .");
}

}  // namespace patchcut

const char* patchcut_last_error(void) { return patchcut::last_error; }

const char* patchcut_version(void) { return PATCHCUT_VERSION; }
