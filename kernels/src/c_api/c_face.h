#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>

#include "cpu/errors.h"
#include "cpu/interrupt.h"
#include "cuda/queue.h"
#include "patchcut/patchcut.h"

namespace patchcut {

constexpr const char* kNoMemory = "memory ran out; use smaller sizes or fewer items at once";

// Keeps the text for patchcut_last_error().
patchcut_status fail(patchcut_status status, const char* text) noexcept;

// Runs body; what it throws becomes a status.
template <class Body>
patchcut_status guard(const Body& body) noexcept {
  try {
    body();
    return PATCHCUT_OK;
  } catch (const std::invalid_argument& error) {
    return fail(PATCHCUT_INVALID_ARGUMENT, error.what());
  } catch (const Unavailable& error) {
    return fail(PATCHCUT_UNAVAILABLE, error.what());
  } catch (const CudaError& error) {
    return fail(PATCHCUT_CUDA_ERROR, error.what());
  } catch (const Interrupted& error) {
    return fail(PATCHCUT_INTERRUPTED, error.what());
  } catch (const std::bad_alloc&) {
    return fail(PATCHCUT_OUT_OF_MEMORY, kNoMemory);
  } catch (const std::exception& error) {
    return fail(PATCHCUT_INTERNAL_ERROR, error.what());
  } catch (...) {
    return fail(PATCHCUT_INTERNAL_ERROR, "an unknown exception");
  }
}

// The same of an op, which the context may interrupt.
template <class Body>
patchcut_status guard_op(const patchcut_context* context, const Body& body) noexcept {
  Interruptible call(context);
  const WorkFor working(&call, true);
  return guard(body);
}

// Whether the context names a CUDA device; throws where it names anything but that or the CPU.
bool on_cuda(const char* op, const patchcut_context* context);

// Throws unless all sizes are at least 0 and their product fits an array of 8-byte elements.
void require_sizes(const char* op, std::initializer_list<int64_t> sizes);

// Throws unless a struct is there and lies where its type may.
template <class Struct>
void require_struct(const char* op, const char* name, const Struct* data) {
  require(data != nullptr, op, std::string(name) + " must not be null");
  require(reinterpret_cast<uintptr_t>(data) % alignof(Struct) == 0, op,
          std::string(name) + " must be aligned");
}

// The arrays of one call, named one after the other. Throws std::invalid_argument for one that is null though
// it has elements, that does not lie where its type may, or that overlaps another of which one is written.
class Arrays {
 public:
  explicit Arrays(const char* op) : op_(op) {}

  template <class T>
  void input(const char* name, const T* data, int64_t count) {
    add({name, data, count, sizeof(T), false});
  }
  template <class T>
  void output(const char* name, T* data, int64_t count, std::initializer_list<const char*> may_be = {}) {
    add({name, data, count, sizeof(T), true}, may_be);
  }
  // Of a patchcut_dtype.
  void input(const char* name, const void* data, int64_t count, int32_t dtype) {
    add({name, data, count, bytes_of(dtype), false});
  }
  void output(const char* name, void* data, int64_t count, int32_t dtype) {
    add({name, data, count, bytes_of(dtype), true});
  }
  // Where they may be null.
  template <class T>
  void optional_input(const char* name, const T* data, int64_t count) {
    if (data != nullptr) input(name, data, count);
  }
  template <class T>
  void optional_output(const char* name, T* data, int64_t count,
                       std::initializer_list<const char*> may_be = {}) {
    if (data != nullptr) output(name, data, count, may_be);
  }

 private:
  struct Array {
    const char* name;
    const void* data;
    int64_t count;
    size_t bytes;  // of an element
    bool written;
  };

  static size_t bytes_of(int32_t dtype) { return dtype == PATCHCUT_FLOAT16 ? 2 : 4; }
  // `may_be`: names of inputs of which it may be one, element for element.
  void add(const Array& array, std::initializer_list<const char*> may_be = {});
  void require_apart(const Array& array, const Array& other, std::initializer_list<const char*> may_be) const;

  static constexpr int kMost = 12;
  const char* op_;
  int count_ = 0;
  Array arrays_[kMost];
};

constexpr int64_t kMostRounds = 65536;

// Throws unless a number of rounds, each of which goes over all data, is `least` to kMostRounds: what asks
// for more asks for an op that never ends.
void require_rounds(const char* op, const char* name, int64_t rounds, int64_t least);

// Throws where the ids of a map are more than it has pixels, and than 65,536.
void require_ids(const char* op, int64_t count, int64_t pixels);

// Throws unless `dtype` is a patchcut_dtype.
void require_dtype(const char* op, const char* name, int32_t dtype);

// Throws where the caller asks for CUDA that this build does not hold.
[[noreturn]] void throw_without_cuda(const char* op);

// Runs an op's twin on CUDA: a build without CUDA never refers to it.
template <class Work>
void run_on_cuda(const char* op, const patchcut_context& context, const Work& work) {
#if PATCHCUT_WITH_CUDA
  run_queued(op, context, work);
#else
  static_cast<void>(context);
  static_cast<void>(work);
  throw_without_cuda(op);
#endif
}

}  // namespace patchcut
