#pragma once

#include <cstddef>
#include <cstdint>

namespace patchcut {

// Memory for one scope, from an arena that each thread keeps: after the first frame nothing is allocated. An
// arena stays within four times what the largest op took on its thread, or 256 KiB; nothing in it grows with
// the frame but a few rows.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // 64-byte aligned, not initialised, valid until this scope ends.
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }

 private:
  struct Arena;

  void* take_bytes(size_t bytes);

  Arena& arena_;  // this thread's
  size_t block_;
  size_t offset_;
};

}  // namespace patchcut
