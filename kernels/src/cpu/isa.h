#pragma once

#include <cstdint>

namespace patchcut {

// What the hot loops are compiled for; PATCHCUT_ISA is one of these names. On aarch64 neon is all there is,
// elsewhere baseline is the slowest of what there is.
enum class Isa : int32_t { baseline, avx2, avx512, neon };

const char* name_of(Isa isa);

// The one in use: PATCHCUT_ISA where set, else the fastest that this machine can run.
Isa isa_in_use();

// Names of those that this build holds and this machine can run, slowest first; null past the last.
const char* available_isa(int32_t index);

// Throws std::invalid_argument for a name that is not available.
void set_isa(const char* name);

}  // namespace patchcut
