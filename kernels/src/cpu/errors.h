#pragma once

#include <exception>
#include <stdexcept>
#include <string>

namespace patchcut {

// CUDA is not in this build, or there is no device.
struct Unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A call of the CUDA runtime failed.
struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The caller of an op wants it to end.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "the op was interrupted"; }
};

// Throws std::invalid_argument "[op] what" unless ok.
inline void require(bool ok, const char* op, const std::string& what) {
  if (!ok) throw std::invalid_argument("[" + std::string(op) + "] " + what);
}

// Throws std::invalid_argument "[op] what must be finite, got NaN or infinity" unless finite.
inline void require_finite(bool finite, const char* op, const char* what) {
  if (!finite) require(false, op, std::string(what) + " must be finite, got NaN or infinity");
}

}  // namespace patchcut
