#pragma once

#include <cstdint>
#include <exception>
#include <initializer_list>
#include <new>
#include <stdexcept>

#include "cpu/errors.h"
#include "cuda/queue.h"
#include "patchcut/patchcut.h"

namespace patchcut {

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
