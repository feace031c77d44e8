#pragma once

namespace patchcut {

// Threads that one op may use, the calling one included: PATCHCUT_THREADS where set, else min(cores, 4).
int get_threads();

// Throws std::invalid_argument for a count outside [1, 256].
void set_threads(int count);

}  // namespace patchcut
