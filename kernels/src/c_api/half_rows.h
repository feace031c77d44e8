#pragma once

#include <cstdint>

#include "cpu/scratch.h"

namespace patchcut {

// An input that may be half: the caller's own memory where it is float32, else a copy for this scope.
class FloatRows {
 public:
  // Elements [first, first + count) of data; `dtype` is a patchcut_dtype.
  FloatRows(const void* data, int32_t dtype, int64_t first, int64_t count);
  const float* data() const { return data_; }

 private:
  Scratch scratch_;
  const float* data_;
};

// An output that may be half: the caller's own memory where it is float32, else room that store() writes
// from.
class FloatResult {
 public:
  FloatResult(void* data, int32_t dtype, int64_t first, int64_t count);
  float* data() const { return data_; }
  // Returns whether all halves are finite.
  bool store();

 private:
  Scratch scratch_;
  float* data_;
  uint16_t* halves_;  // null where the output is float32
  int64_t count_;
};

}  // namespace patchcut
