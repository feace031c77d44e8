#pragma once

#include <cstdint>
#include <string>

namespace patchcut {

// Instruction sets this build holds and this machine can run, slowest first; null past the last.
const char* available_isa(int32_t index);

// The one in use: PATCHCUT_ISA where set, else the fastest available.
const char* get_isa();

// Throws std::invalid_argument for a name that is not available.
void set_isa(const std::string& name);

}  // namespace patchcut
