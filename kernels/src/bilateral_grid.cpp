#include "bilateral_grid.h"

#include <algorithm>

#include "bilateral_bins.h"
#include "simd.h"
#include "simd_refine.h"
#include "simd_solver.h"
#include "thread_pool.h"

namespace patchcut {
namespace {

// Where the cells of one axis start.
struct Cells {
  int64_t count;
  int32_t* starts;  // [count + 1]

  int64_t size(int64_t cell) const { return starts[cell + 1] - starts[cell]; }
};

Cells make_cells(int64_t size, float sigma, Scratch* scratch) {
  const float per_cell = 1.0f / sigma;
  Cells cells{bin_of(size - 1, per_cell) + 1, nullptr};
  cells.starts = scratch->take<int32_t>(cells.count + 1);
  int64_t next = 0;
  for (int64_t i = 0; i < size; ++i) {
    while (next <= bin_of(i, per_cell)) cells.starts[next++] = static_cast<int32_t>(i);
  }
  cells.starts[cells.count] = static_cast<int32_t>(size);
  return cells;
}

ColorBins make_color_bins(const BilateralSolverParams& params) {
  ColorBins bins{1.0f / params.sigma_luma, 1.0f / params.sigma_chroma, 0, 0, params.swap_channels};
  // One more of each stays empty: the neighbour of the last bin is no bin of the next row.
  bins.luma_quads = static_cast<int32_t>(bin_of(255, bins.per_luma) / kQuad + 2);
  bins.chroma_bins = static_cast<int32_t>(bin_of(255, bins.per_chroma) + 2);
  return bins;
}

// Numbers for the keys of one cell at a time.
class KeyTable {
 public:
  KeyTable(int64_t most_keys, Scratch* scratch) {
    while ((int64_t{1} << bits_) < 2 * most_keys) ++bits_;
    const int64_t capacity = int64_t{1} << bits_;
    entries_ = scratch->take<Entry>(capacity);
    std::fill_n(entries_, capacity, Entry{~uint64_t{0}, 0});
  }

  // Forgets all keys.
  void start(int64_t cell) { cell_ = static_cast<uint64_t>(cell) << 32; }

  // The number of a key; it gets `fresh` where it has none.
  int32_t find_or_add(int32_t key, int32_t fresh) {
    Entry* entry = find_entry(key);
    if (entry->tag != tag_of(key)) *entry = {tag_of(key), fresh};
    return static_cast<int32_t>(entry->number);
  }

  // The number of a key, or -1.
  int32_t find(int32_t key) {
    const Entry* entry = find_entry(key);
    return entry->tag == tag_of(key) ? static_cast<int32_t>(entry->number) : -1;
  }

 private:
  struct Entry {
    uint64_t tag;  // cell, key
    int64_t number;
  };

  uint64_t tag_of(int32_t key) const { return cell_ | static_cast<uint32_t>(key); }

  // Of the key, or the one to put it in, which another cell left; at least half are such.
  Entry* find_entry(int32_t key) {
    const uint64_t tag = tag_of(key);
    const uint32_t mask = (uint32_t{1} << bits_) - 1;
    uint32_t at = (static_cast<uint32_t>(key) * 2654435769u) >> (32 - bits_);
    while (entries_[at].tag != tag && (entries_[at].tag ^ tag) >> 32 == 0) at = (at + 1) & mask;
    return entries_ + at;
  }

  int bits_ = 4;
  uint64_t cell_ = 0;
  Entry* entries_;
};

struct Job {
  const SimdTable& simd;
  const uint8_t* frame;
  int64_t height;
  int64_t width;
  ColorBins bins;
  Cells columns;
  Cells rows;
  int64_t most_pixels;   // of a cell
  int32_t* vertices;     // [height, width]
  int32_t* keys;         // [height * width]; those of a row of cells begin where its pixels do
  int32_t* cell_quads;   // [cell rows, cell columns + 1], first quad of a cell within its row of cells
  int32_t* quad_starts;  // [cell rows + 1]
  int32_t* neighbours;   // [quads, kNeighbours]

  int32_t* cell_row_quads(int64_t row) const { return cell_quads + row * (columns.count + 1); }
  const int32_t* cell_keys(int64_t row, int64_t column) const {
    return keys + rows.starts[row] * width + cell_row_quads(row)[column];
  }
  int64_t cell_size(int64_t row, int64_t column) const {
    return cell_row_quads(row)[column + 1] - cell_row_quads(row)[column];
  }
  int32_t first_quad(int64_t row, int64_t column) const {
    return quad_starts[row] + cell_row_quads(row)[column];
  }
};

// Leaves the color's key in place of each pixel's vertex.
void find_keys(const Job& job, int64_t row) {
  constexpr int64_t kPadding = 64;
  Scratch scratch;
  const int64_t stride = job.width + kPadding;
  int8_t* planes = scratch.take<int8_t>(3 * stride);
  float* colors = scratch.take<float>(3 * stride);
  int32_t* keys = scratch.take<int32_t>(stride);
  std::fill_n(planes, 3 * stride, static_cast<int8_t>(0));
  for (int64_t y = job.rows.starts[row]; y < job.rows.starts[row + 1]; ++y) {
    job.simd.refine->split_channels(job.width, job.frame + y * job.width * 3, planes, stride);
    job.simd.refine->widen_planes(stride, planes, stride, colors);
    job.simd.solver->color_keys(job.width, colors, stride, job.bins, keys);
    std::copy_n(keys, job.width, job.vertices + y * job.width);
  }
}

// Numbers the quads of a row of cells in the order of their first pixels, cell by cell.
void number_quads(const Job& job, int64_t row, KeyTable* table) {
  find_keys(job, row);
  int32_t* keys = job.keys + job.rows.starts[row] * job.width;
  int32_t* cell_quads = job.cell_row_quads(row);
  int32_t count = 0;
  for (int64_t column = 0; column < job.columns.count; ++column) {
    cell_quads[column] = count;
    table->start(row * job.columns.count + column);
    for (int64_t y = job.rows.starts[row]; y < job.rows.starts[row + 1]; ++y) {
      int32_t* vertices = job.vertices + y * job.width;
      for (int64_t x = job.columns.starts[column]; x < job.columns.starts[column + 1]; ++x) {
        const int32_t key = vertices[x] >> 2;
        const int32_t quad = table->find_or_add(key, count);
        if (quad == count) keys[count++] = key;
        vertices[x] = quad * 4 + (vertices[x] & 3);
      }
    }
  }
  cell_quads[job.columns.count] = count;
}

// Pairs of neighbours in the order of BilateralGrid::neighbours.
enum Axis { kLuma, kU, kV, kX, kY };

void join(const Job& job, int32_t before, int32_t after, Axis axis) {
  job.neighbours[before * kNeighbours + 2 * axis + 1] = after * kQuad;
  job.neighbours[after * kNeighbours + 2 * axis] = before * kQuad;
}

// Joins the quads of another cell that are `step` keys before one of the table's.
void join_cells(const Job& job, int64_t row, int64_t column, int32_t step, Axis axis, KeyTable* table) {
  const int32_t* keys = job.cell_keys(row, column);
  const int64_t count = job.cell_size(row, column);
  const int32_t first = job.first_quad(row, column);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t after = table->find(keys[i] + step);
    if (after >= 0) join(job, first + static_cast<int32_t>(i), after, axis);
  }
}

void join_row(const Job& job, int64_t row, KeyTable* table) {
  const int32_t per_u = job.bins.luma_quads;
  const int32_t per_v = per_u * job.bins.chroma_bins;
  for (int64_t column = 0; column < job.columns.count; ++column) {
    table->start(row * job.columns.count + column);
    const int32_t* keys = job.cell_keys(row, column);
    const int64_t count = job.cell_size(row, column);
    for (int64_t i = 0; i < count; ++i) {
      table->find_or_add(keys[i], job.first_quad(row, column) + static_cast<int32_t>(i));
    }
    join_cells(job, row, column, 1, kLuma, table);
    join_cells(job, row, column, per_u, kU, table);
    join_cells(job, row, column, per_v, kV, table);
    if (column > 0) join_cells(job, row, column - 1, 0, kX, table);
    if (row > 0) join_cells(job, row - 1, column, 0, kY, table);
  }
}

template <class Visit>
void for_cell_rows(const Job& job, int64_t cycles_per_pixel, const Visit& visit) {
  parallel_for(job.rows.count, job.width * job.rows.size(0) * cycles_per_pixel,
               [&](int64_t begin, int64_t end) {
                 Scratch scratch;
                 KeyTable table(job.most_pixels, &scratch);
                 for (int64_t row = begin; row < end; ++row) visit(row, &table);
               });
}

}  // namespace

BilateralGrid make_bilateral_grid(const uint8_t* frame, int64_t height, int64_t width,
                                  const BilateralSolverParams& params, Scratch* scratch) {
  const Cells columns = make_cells(width, params.sigma_spatial, scratch);
  const Cells rows = make_cells(height, params.sigma_spatial, scratch);
  int64_t widest = 0;
  int64_t tallest = 0;
  for (int64_t i = 0; i < columns.count; ++i) widest = std::max(widest, columns.size(i));
  for (int64_t i = 0; i < rows.count; ++i) tallest = std::max(tallest, rows.size(i));
  Job job{simd(),
          frame,
          height,
          width,
          make_color_bins(params),
          columns,
          rows,
          widest * tallest,
          scratch->take<int32_t>(height * width),
          scratch->take<int32_t>(height * width + 1),
          scratch->take<int32_t>(rows.count * (columns.count + 1)),
          scratch->take<int32_t>(rows.count + 1),
          nullptr};
  for_cell_rows(job, 16, [&](int64_t row, KeyTable* table) { number_quads(job, row, table); });
  job.quad_starts[0] = 0;
  for (int64_t row = 0; row < rows.count; ++row) {
    job.quad_starts[row + 1] = job.quad_starts[row] + job.cell_row_quads(row)[columns.count];
  }
  const int64_t quads = job.quad_starts[rows.count];
  job.neighbours = scratch->take<int32_t>(quads * kNeighbours);
  std::fill_n(job.neighbours, quads * kNeighbours, static_cast<int32_t>(quads * kQuad));
  for_cell_rows(job, 2, [&](int64_t row, KeyTable* table) { join_row(job, row, table); });
  return {quads, rows.count, rows.starts, job.quad_starts, job.vertices, job.neighbours};
}

}  // namespace patchcut
