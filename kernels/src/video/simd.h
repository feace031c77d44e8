#pragma once

#include "cpu/simd.h"

namespace patchcut {

// The memory's patches that each query of a panel resembles most, the best first, of equals the one that
// comes first in memory.
struct Nearest {
  int64_t topk;
  float* cosines;   // [topk, panel]; lowest float where there are fewer
  int32_t* places;  // [topk, panel], in memory; -1 where there are fewer
};

// Neighbours in a row of one frame of the memory, with their products with the queries of a panel.
struct KeyRun {
  const float* products;  // [count, panel], of which [first, last) are known
  const float* scales;    // [count]; cosine = product * scale
  int64_t count;
  int32_t place;  // of the first one in memory
  int32_t row;    // on the grid
  int32_t column;
  int64_t first;  // queries that are to look at them, in whole lane blocks
  int64_t last;
  int32_t radius;
  const int32_t* query_rows;     // [panel], on the grid
  const int32_t* query_columns;  // [panel]
};

// The hot loops of propagate. Its queries are patches of a tile of the grid; one vector of a panel holds
// those of lane_rows x lane_columns patches, and the vectors follow each other downward.
struct VideoTable {
  PATCHCUT_PER_ISA(VideoTable);

  const int64_t lane_rows;
  const int64_t lane_columns;

  constexpr VideoTable(int64_t rows, int64_t columns) : lane_rows(rows), lane_columns(columns) {}

  // Takes in those keys of a run that lie within the radius of a query, both along rows and along columns.
  virtual void keep_nearest(const KeyRun& run, const Nearest& nearest) const = 0;
  // cosines = softmax(cosines * sharpness) of each query, 0 where there are fewer than topk.
  virtual void soften(const Nearest& nearest, float sharpness) const = 0;
  // out[c] = the rows of values[.., c] at a query's places, weighted by its softened cosines.
  virtual void blend(const Nearest& nearest, int64_t query, int64_t c, const float* values,
                     float* out) const = 0;
};

}  // namespace patchcut
