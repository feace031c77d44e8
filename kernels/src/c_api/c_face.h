#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "patchcut/patchcut.h"

namespace patchcut {

// CUDA is not in this build, or there is no device.
struct Unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A call of the CUDA runtime failed.
struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

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
  } catch (const std::bad_alloc&) {
    return fail(PATCHCUT_OUT_OF_MEMORY, "memory ran out; use smaller sizes or fewer items at once");
  } catch (const std::exception& error) {
    return fail(PATCHCUT_INTERNAL_ERROR, error.what());
  } catch (...) {
    return fail(PATCHCUT_INTERNAL_ERROR, "an unknown exception");
  }
}

// Throws std::invalid_argument "[op] what" unless ok.
inline void require(bool ok, const char* op, const std::string& what) {
  if (!ok) throw std::invalid_argument("[" + std::string(op) + "] " + what);
}

// Whether the context names a CUDA device; throws where it names anything but that or the CPU.
bool on_cuda(const char* op, const patchcut_context* context);

// Throws unless all sizes are at least 0 and their product fits an array of 8-byte elements.
void require_sizes(const char* op, std::initializer_list<int64_t> sizes);

// Throws unless the array is there or has no elements.
void require_array(const char* op, const char* name, const void* data, int64_t elements);

// Throws unless `dtype` is a patchcut_dtype.
void require_dtype(const char* op, const char* name, int32_t dtype);

// Throws where the caller asks for CUDA that this build does not hold.
[[noreturn]] void throw_without_cuda(const char* op);

}  // namespace patchcut
