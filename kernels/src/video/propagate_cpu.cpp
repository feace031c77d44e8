// A tile of neighbouring queries is one packed panel; rows of the memory are read as they are, once for their
// norms, and once by each strip of tiles: the products of a row of one frame with the tiles of a strip follow
// each other, while row and panels are in the L2 cache. Of 6 frames of 1,024 patches x 384 that reads 30 MB
// in place of 158 MB; where the L3 cache holds them it is worth 5 %.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "cpu/errors.h"
#include "cpu/feature_rows.h"
#include "cpu/interrupt.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "cpu/thread_pool.h"
#include "video/propagate.h"
#include "video/simd.h"

namespace patchcut {
namespace {

constexpr const char* kOp = "propagate";

struct Job {
  const SimdTable& simd;
  const VideoTable& loops;
  const float* features;
  const float* memory;  // of finite rows whose squares do not leave the range of float
  const float* scales;  // [frames * n], 1 / |row|, 0 of a zero row
  const float* values;
  const MemoryShape& shape;
  int64_t radius;  // at most the larger side of the grid
  int64_t topk;
  float sharpness;
  float* out;

  int64_t tile_rows() const { return simd.panel / loops.lane_columns; }
  int64_t tile_columns() const { return loops.lane_columns; }
  int64_t lanes() const { return loops.lane_rows * loops.lane_columns; }
  int64_t tiles_across() const { return (shape.width + tile_columns() - 1) / tile_columns(); }
  int64_t tiles_down() const { return (shape.height + tile_rows() - 1) / tile_rows(); }
};

struct Span {
  int64_t first;
  int64_t last;  // past the end

  int64_t count() const { return last - first; }
};

// `span` and `radius` more on both sides, as far as there is a grid.
Span widened(Span span, int64_t radius, int64_t size) {
  return {std::max<int64_t>(0, span.first - radius), std::min(size, span.last + radius)};
}

// Queries of one tile, and what is known of them.
struct Tile {
  Span rows;
  Span columns;
  float* packed;           // [d, panel], unit rows transposed, zeros for places outside the grid
  int32_t* query_rows;     // [panel], of a place outside the grid far from all rows
  int32_t* query_columns;  // [panel]
  Nearest nearest;
};

enum class Rows { kUsual, kExtreme, kNotFinite };

// The scales of rows of the memory, and whether they are right: of rows whose squares leave the range of
// float they are not.
Rows measure_rows(const SimdTable& simd, int64_t count, int64_t d, const float* rows, float* scales) {
  Rows kind = Rows::kUsual;
  for (int64_t i = 0; i < count; ++i) {
    const float squares = simd.sum_squares(d, rows + i * d);
    scales[i] = 1.0f / std::sqrt(squares);
    if (squares > 1e-30f && squares < 1e30f) continue;
    const float largest = simd.largest_magnitude(d, rows + i * d);
    if (!std::isfinite(largest)) return Rows::kNotFinite;
    if (largest > 0.0f) kind = Rows::kExtreme;
    scales[i] = 0.0f;
  }
  return kind;
}

Rows measure_memory(const SimdTable& simd, int64_t count, int64_t d, const float* memory, float* scales) {
  std::atomic<bool> finite{true};
  std::atomic<bool> extreme{false};
  parallel_for(count, d / 4, [&](int64_t begin, int64_t end) {
    const Rows kind = measure_rows(simd, end - begin, d, memory + begin * d, scales + begin);
    if (kind == Rows::kNotFinite) finite.store(false, std::memory_order_relaxed);
    if (kind == Rows::kExtreme) extreme.store(true, std::memory_order_relaxed);
  });
  if (!finite) return Rows::kNotFinite;
  return extreme ? Rows::kExtreme : Rows::kUsual;
}

void normalize_memory(const SimdTable& simd, int64_t count, int64_t d, const float* memory, float* unit,
                      float* scales) {
  parallel_for(count, d, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) normalize_row(simd, d, memory + i * d, unit + i * d);
  });
  std::fill_n(scales, count, 1.0f);
}

Span tile_span(int64_t tile, int64_t side, int64_t size) {
  return {tile * side, std::min(size, (tile + 1) * side)};
}

// The lanes of a panel go over the patches of a vector first.
void pack_queries(const Job& job, Tile& tile) {
  const int64_t d = job.shape.d;
  const int64_t columns = job.tile_columns();
  Scratch scratch;
  float* unit = scratch.take<float>(job.simd.panel * d);
  for (int64_t lane = 0; lane < job.simd.panel; ++lane) {
    const int64_t row = tile.rows.first + lane / columns;
    const int64_t column = tile.columns.first + lane % columns;
    float* out = unit + lane * d;
    const bool inside = row < tile.rows.last && column < tile.columns.last;
    tile.query_rows[lane] = inside ? static_cast<int32_t>(row) : std::numeric_limits<int32_t>::min() / 2;
    tile.query_columns[lane] = static_cast<int32_t>(column);
    if (!inside) {
      std::fill_n(out, d, 0.0f);
      continue;
    }
    normalize_row(job.simd, d, job.features + (row * job.shape.width + column) * d, out);
  }
  job.simd.pack_transposed(job.simd.panel, d, unit, d, tile.packed);
}

Tile make_tile(const Job& job, int64_t down, int64_t across, Scratch& scratch) {
  const int64_t panel = job.simd.panel;
  Tile tile{tile_span(down, job.tile_rows(), job.shape.height),
            tile_span(across, job.tile_columns(), job.shape.width),
            scratch.take<float>(panel * job.shape.d),
            scratch.take<int32_t>(panel),
            scratch.take<int32_t>(panel),
            {job.topk, scratch.take<float>(job.topk * panel), scratch.take<int32_t>(job.topk * panel)}};
  std::fill_n(tile.nearest.cosines, job.topk * panel, -std::numeric_limits<float>::max());
  std::fill_n(tile.nearest.places, job.topk * panel, -1);
  pack_queries(job, tile);
  return tile;
}

// Looks through one row of one frame of the memory, as far as it is in the window of a query.
void look_through(const Job& job, const Tile& tile, int64_t frame, int64_t row, float* products) {
  const int64_t lanes = job.lanes();
  const Span columns = widened(tile.columns, job.radius, job.shape.width);
  const int64_t place = (frame * job.shape.height + row) * job.shape.width + columns.first;
  // Vectors of which a query is within the radius of this row.
  const Span rows = widened({row, row + 1}, job.radius, tile.rows.last);
  const int64_t first = std::max<int64_t>(0, rows.first - tile.rows.first) / job.loops.lane_rows * lanes;
  const int64_t last = (rows.last - tile.rows.first + job.loops.lane_rows - 1) / job.loops.lane_rows * lanes;
  job.simd.gemm_panel(columns.count(), job.shape.d, job.memory + place * job.shape.d, job.shape.d, 1,
                      tile.packed + first, products + first, job.simd.panel, last - first);
  job.loops.keep_nearest({products, job.scales + place, columns.count(), static_cast<int32_t>(place),
                          static_cast<int32_t>(row), static_cast<int32_t>(columns.first), first, last,
                          static_cast<int32_t>(job.radius), tile.query_rows, tile.query_columns},
                         tile.nearest);
}

void write_tile(const Job& job, const Tile& tile) {
  job.loops.soften(tile.nearest, job.sharpness);
  for (int64_t lane = 0; lane < job.simd.panel; ++lane) {
    if (tile.query_rows[lane] < 0) continue;
    const int64_t node = tile.query_rows[lane] * job.shape.width + tile.query_columns[lane];
    job.loops.blend(tile.nearest, lane, job.shape.c, job.values, job.out + node * job.shape.c);
  }
}

// Tiles beside each other.
void fill_strip(const Job& job, int64_t down, Span across) {
  Scratch scratch;
  Tile* tiles = scratch.take<Tile>(across.count());
  for (int64_t t = 0; t < across.count(); ++t) tiles[t] = make_tile(job, down, across.first + t, scratch);
  const int64_t columns = std::min(job.shape.width, job.tile_columns() + 2 * job.radius);
  float* products = scratch.take<float>(columns * job.simd.panel);
  const Span rows = widened(tiles[0].rows, job.radius, job.shape.height);
  InterruptPoll poll;
  for (int64_t frame = 0; frame < job.shape.frames; ++frame) {
    for (int64_t row = rows.first; row < rows.last; ++row) {
      poll.spend(across.count() * columns * job.simd.panel * job.shape.d / 12);
      for (int64_t t = 0; t < across.count(); ++t) look_through(job, tiles[t], frame, row, products);
    }
  }
  for (int64_t t = 0; t < across.count(); ++t) write_tile(job, tiles[t]);
}

// Strips as long as the L2 cache takes panels, and so many that all threads have some.
int64_t strips_across(const Job& job) {
  constexpr int64_t kPanelBytes = 320 * 1024;
  const int64_t panels = kPanelBytes / (job.simd.panel * job.shape.d * static_cast<int64_t>(sizeof(float)));
  const int64_t share = job.tiles_down() * job.tiles_across() / (4 * get_threads());
  const int64_t tiles = std::max<int64_t>(1, std::min(panels, share));
  return (job.tiles_across() + tiles - 1) / tiles;
}

}  // namespace

void propagate_cpu(const float* features, const float* memory, const float* values, const MemoryShape& shape,
                   const patchcut_propagate_params& params, float* out) {
  const int64_t n = shape.nodes();
  if (n == 0) return;
  const SimdTable& table = simd();
  const int64_t patches = shape.frames * n;
  require_finite(table.all_finite(n * shape.d, features), kOp, "features");
  require_finite(table.all_finite(patches * shape.c, values), kOp, "values");
  Scratch scratch;
  float* scales = scratch.take<float>(patches);
  const Rows kind = measure_memory(table, patches, shape.d, memory, scales);
  require_finite(kind != Rows::kNotFinite, kOp, "memory");
  if (kind == Rows::kExtreme) {
    float* unit = scratch.take<float>(patches * shape.d);
    normalize_memory(table, patches, shape.d, memory, unit, scales);
    memory = unit;
  }
  const int64_t radius = std::min(params.radius, std::max(shape.height, shape.width));
  const Job job{table,
                table.get<VideoTable>(),
                features,
                memory,
                scales,
                values,
                shape,
                radius,
                std::min(params.topk, patches),
                1.0f / params.temperature,
                out};
  const int64_t side = 2 * radius + 1;
  const int64_t window = std::min(side, shape.height) * std::min(side, shape.width) * shape.frames;
  const int64_t strips = strips_across(job);
  const int64_t queries = table.panel * job.tiles_across() / strips;
  parallel_for(job.tiles_down() * strips, window * queries * shape.d / 12, [&](int64_t begin, int64_t end) {
    for (int64_t strip = begin; strip < end; ++strip) {
      const int64_t i = strip % strips;
      fill_strip(job, strip / strips,
                 {job.tiles_across() * i / strips, job.tiles_across() * (i + 1) / strips});
    }
  });
}

}  // namespace patchcut
