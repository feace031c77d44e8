#pragma once

#include <string>

namespace patchcut {

// Physical cores that this process may run on, limited by the CPU quota of its control groups (rounded down),
// at least 1. Reads /proc and /sys below `root`.
int default_threads(const std::string& root = "");

// Threads that one op may use, the calling one included: PATCHCUT_THREADS where set, else default_threads().
int get_threads();

// Where the system starts fewer threads, ops run on those: get_threads() tells how many.
// Throws std::invalid_argument for a count outside [1, 256].
void set_threads(int count);

}  // namespace patchcut
