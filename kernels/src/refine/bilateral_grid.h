#pragma once

#include <cstdint>

#include "cpu/scratch.h"
#include "patchcut/patchcut.h"
#include "refine/solver_simd.h"

namespace patchcut {

// The vertices of the simplified bilateral grid (1511.03296, section 3) that pixels fall into. They come in
// quads: four neighbours in luma of which at least one is there; vertex v is in quad v / 4. Quads are sorted
// by the row of cells that they lie in.
struct BilateralGrid {
  int64_t cell_rows;
  const int32_t* row_starts;   // [cell_rows + 1], first row of pixels
  const int32_t* quad_starts;  // [cell_rows + 1], first quad
  const int32_t* vertices;     // [height, width], of each pixel, counted from its row of cells' first quad
  QuadGraph graph;
};

BilateralGrid make_bilateral_grid(const uint8_t* frame, int64_t height, int64_t width,
                                  const patchcut_bilateral_solver_params& params, Scratch* scratch);

}  // namespace patchcut
