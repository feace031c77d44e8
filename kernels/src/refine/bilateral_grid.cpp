#include "refine/bilateral_grid.h"

#include <algorithm>

#include "cpu/thread_pool.h"
#include "refine/bilateral_bins.h"
#include "refine/guided_simd.h"
#include "refine/solver_simd.h"

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

ColorBins make_color_bins(const patchcut_bilateral_solver_params& params) {
  ColorBins bins{1.0f / params.sigma_luma, 1.0f / params.sigma_chroma, 0, 0, params.color == PATCHCUT_BGR};
  // One quad and one bin more stay empty: the neighbour of the last is no bin of the next row.
  while (bin_of(255, bins.per_luma) + kQuad >= int64_t{1} << bins.luma_bits) ++bins.luma_bits;
  bins.chroma_bins = static_cast<int32_t>(bin_of(255, bins.per_chroma) + 2);
  return bins;
}

// The vertices of one cell at a time by their keys: a row over luma for each chroma, so that nothing is
// searched.
class CellVertices {
 public:
  // `none` is found where there is no quad.
  CellVertices(const ColorBins& bins, int64_t most_quads, int32_t none, Scratch* scratch)
      : luma_bits_(bins.luma_bits), none_(none) {
    const int64_t chromas = int64_t{bins.chroma_bins} * bins.chroma_bins;
    const int64_t most_rows = std::min(chromas, most_quads);
    rows_ = scratch->take<int32_t>(chromas);
    chromas_ = scratch->take<int32_t>(most_rows);
    vertices_ = scratch->take<int32_t>((1 + most_rows) << luma_bits_);
    std::fill_n(rows_, chromas, 0);
    std::fill_n(vertices_, 1 << luma_bits_, none_);
  }

  // Forgets all quads.
  void clear() {
    for (int32_t i = 0; i < count_; ++i) rows_[chromas_[i]] = 0;
    count_ = 0;
  }

  int32_t find(int32_t key) const { return vertices_[rows_[chroma_of(key)] + luma_of(key)]; }

  // Puts in a quad by the key of its first vertex.
  void add(int32_t key, int32_t quad) {
    int32_t& row = rows_[chroma_of(key)];
    if (row == 0) {
      chromas_[count_++] = chroma_of(key);
      row = count_ << luma_bits_;
      std::fill_n(vertices_ + row, 1 << luma_bits_, none_);
    }
    int32_t* vertices = vertices_ + row + luma_of(key);
    for (int32_t i = 0; i < kQuad; ++i) vertices[i] = quad * static_cast<int32_t>(kQuad) + i;
  }

 private:
  int32_t chroma_of(int32_t key) const { return key >> luma_bits_; }
  int32_t luma_of(int32_t key) const { return key & ((1 << luma_bits_) - 1); }

  int luma_bits_;
  int32_t none_;
  int32_t count_ = 0;
  int32_t* rows_;      // [chromas], where their vertices begin; 0 is the empty row of all that are not there
  int32_t* chromas_;   // [count_], those that are there
  int32_t* vertices_;  // [1 + count_, 2^luma_bits_]
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
  int32_t* keys;         // [height * width], of quads; those of a row of cells begin where its pixels do
  int32_t* cell_quads;   // [cell rows, cell columns + 1], first quad of a cell within its row of cells
  int32_t* quad_starts;  // [cell rows + 1]
  // [quads + cell rows, kNeighbours], first vertices of the quads before and after in luma, U, V, x and y.
  // One row past the last quad's for each row of cells stands for what its quads lack: writing it takes no
  // branch.
  int32_t* neighbours;
  int32_t* side_counts;  // see QuadGraph
  int32_t* graph_rows;

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
  Scratch scratch;
  int8_t* planes = scratch.take<int8_t>(3 * job.width);
  for (int64_t y = job.rows.starts[row]; y < job.rows.starts[row + 1]; ++y) {
    job.simd.get<GuidedTable>().split_channels(job.width, job.frame + y * job.width * 3, planes, job.width);
    job.simd.get<SolverTable>().color_keys(job.width, planes, job.width, job.bins,
                                           job.vertices + y * job.width);
  }
}

// Numbers the quads of a row of cells in the order of their first pixels, cell by cell.
void number_quads(const Job& job, int64_t row) {
  find_keys(job, row);
  Scratch scratch;
  constexpr int32_t kNone = -1;
  CellVertices vertices(job.bins, job.most_pixels, kNone, &scratch);
  int32_t* keys = job.keys + job.rows.starts[row] * job.width;
  int32_t* cell_quads = job.cell_row_quads(row);
  int32_t count = 0;
  for (int64_t column = 0; column < job.columns.count; ++column) {
    cell_quads[column] = count;
    vertices.clear();
    for (int64_t y = job.rows.starts[row]; y < job.rows.starts[row + 1]; ++y) {
      int32_t* at = job.vertices + y * job.width + job.columns.starts[column];
      const int32_t* end = job.vertices + y * job.width + job.columns.starts[column + 1];
      for (; at < end; ++at) {
        const int32_t key = *at;
        int32_t vertex = vertices.find(key);
        if (vertex == kNone) {
          keys[count] = key & -static_cast<int32_t>(kQuad);
          vertices.add(keys[count], count);
          ++count;
          vertex = vertices.find(key);
        }
        *at = vertex;
      }
    }
  }
  cell_quads[job.columns.count] = count;
}

// Pairs of neighbours in the order of Job::neighbours.
enum Axis { kLuma, kU, kV, kX, kY };

// Joins the quads of a cell to those in the cell of `vertices` that are `step` keys after them.
void join_cells(const Job& job, int64_t row, int64_t column, int32_t step, Axis axis,
                const CellVertices& vertices) {
  const int32_t* keys = job.cell_keys(row, column);
  const int64_t count = job.cell_size(row, column);
  const int32_t first = job.first_quad(row, column);
  int32_t* before_axis = job.neighbours + 2 * axis;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t before = first + i;
    const int32_t after = vertices.find(keys[i] + step);
    before_axis[before * kNeighbours + 1] = after;
    before_axis[after / kQuad * kNeighbours] = static_cast<int32_t>(before * kQuad);
  }
}

void join_row(const Job& job, int64_t row, int64_t quads) {
  Scratch scratch;
  const int32_t none = static_cast<int32_t>((quads + row) * kQuad);
  CellVertices vertices(job.bins, job.most_pixels, none, &scratch);
  const int32_t per_u = 1 << job.bins.luma_bits;
  const int32_t per_v = per_u * job.bins.chroma_bins;
  for (int64_t column = 0; column < job.columns.count; ++column) {
    vertices.clear();
    const int32_t* keys = job.cell_keys(row, column);
    const int64_t count = job.cell_size(row, column);
    for (int64_t i = 0; i < count; ++i) {
      vertices.add(keys[i], job.first_quad(row, column) + static_cast<int32_t>(i));
    }
    join_cells(job, row, column, kQuad, kLuma, vertices);
    join_cells(job, row, column, per_u, kU, vertices);
    join_cells(job, row, column, per_v, kV, vertices);
    if (column > 0) join_cells(job, row, column - 1, 0, kX, vertices);
    if (row > 0) join_cells(job, row - 1, column, 0, kY, vertices);
  }
}

// Counts the sides of a block's quads, and the quads that have as many.
void count_sides(const int32_t* neighbours, int64_t quads, int32_t none, int32_t* sides, int32_t* counts) {
  std::fill_n(counts, kSides + 1, 0);
  for (int64_t i = 0; i < quads; ++i) {
    sides[i] = 0;
    for (int64_t j = 2; j < kNeighbours; ++j) sides[i] += neighbours[i * kNeighbours + j] < none;
    ++counts[sides[i]];
  }
}

// Writes the rows of QuadGraph for a block.
void sort_block(const Job& job, int64_t block, int64_t quads) {
  const int64_t begin = block * kBlockQuads;
  const int64_t count = std::min(kBlockQuads, quads - begin);
  const int32_t none = static_cast<int32_t>(quads * kQuad);
  const int32_t* near = job.neighbours + begin * kNeighbours;
  int32_t* counts = job.side_counts + block * (kSides + 1);
  int32_t sides[kBlockQuads];
  count_sides(near, count, none, sides, counts);
  int32_t* ends[kSides + 1];
  int32_t* next = job.graph_rows + block * kBlockRows;
  for (int64_t i = 0; i <= kSides; ++i) {
    ends[i] = next;
    next += counts[i] * (3 + i) + kSides;
  }
  for (int64_t i = 0; i < count; ++i, near += kNeighbours) {
    int32_t* row = ends[sides[i]];
    ends[sides[i]] += 3 + sides[i];
    row[0] = static_cast<int32_t>((begin + i) * kQuad);
    row[1] = std::min(near[0], none);
    row[2] = std::min(near[1], none);
    // Those that are not there are written too, and then over.
    int32_t* side = row + 3;
    for (int64_t j = 2; j < kNeighbours; ++j) {
      *side = near[j];
      side += near[j] < none;
    }
  }
}

template <class Visit>
void for_cell_rows(const Job& job, int64_t cycles_per_pixel, const Visit& visit) {
  parallel_for(job.rows.count, job.width * job.rows.size(0) * cycles_per_pixel,
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) visit(row);
               });
}

// Finds the neighbours of all quads.
QuadGraph join_quads(Job* job, int64_t quads, Scratch* scratch) {
  const int64_t blocks = (quads + kBlockQuads - 1) / kBlockQuads;
  job->neighbours = scratch->take<int32_t>((quads + job->rows.count) * kNeighbours);
  job->side_counts = scratch->take<int32_t>(blocks * (kSides + 1));
  job->graph_rows = scratch->take<int32_t>(blocks * kBlockRows);
  std::fill_n(job->neighbours, quads * kNeighbours, static_cast<int32_t>(quads * kQuad));
  for_cell_rows(*job, 2, [&](int64_t row) { join_row(*job, row, quads); });
  parallel_shares(blocks, kBlockQuads * 40, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) sort_block(*job, block, quads);
  });
  return {quads, job->side_counts, job->graph_rows};
}

}  // namespace

BilateralGrid make_bilateral_grid(const uint8_t* frame, int64_t height, int64_t width,
                                  const patchcut_bilateral_solver_params& params, Scratch* scratch) {
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
          nullptr,
          nullptr,
          nullptr};
  for_cell_rows(job, 16, [&](int64_t row) { number_quads(job, row); });
  job.quad_starts[0] = 0;
  for (int64_t row = 0; row < rows.count; ++row) {
    job.quad_starts[row + 1] = job.quad_starts[row] + job.cell_row_quads(row)[columns.count];
  }
  const int64_t quads = job.quad_starts[rows.count];
  const QuadGraph graph = join_quads(&job, quads, scratch);
  return {rows.count, rows.starts, job.quad_starts, job.vertices, graph};
}

}  // namespace patchcut
