#pragma once

#include <string>
#include <vector>

namespace patchcut {

// Instruction sets this build holds and this machine can run, slowest first.
std::vector<std::string> available_isas();

// The one in use: PATCHCUT_ISA where set, else the fastest available.
std::string get_isa();

// Throws std::invalid_argument for a name that is not available.
void set_isa(const std::string& name);

}  // namespace patchcut
