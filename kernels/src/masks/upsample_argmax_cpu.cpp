#include <algorithm>
#include <cmath>
#include <string>

#include "cpu/errors.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "masks/simd.h"
#include "masks/upsample_argmax.h"

namespace patchcut {
namespace {

// The sum of four, and the difference of two, are still finite.
constexpr float kLargestAssignment = 0x1p125f;

// Output positions [begin, end) lie between grid points `low` and `high`.
struct Span {
  int64_t begin;
  int64_t end;
  int64_t low;
  int64_t high;
};

// Classes that win somewhere in one cell of the grid, ascending.
struct Candidates {
  int32_t* names;
  int64_t count;
};

struct Axis {
  Span* spans;
  int64_t count;
  float* fractions;  // [size + padding], from `low` to `high`
};

Axis make_axis(int64_t grid, int64_t size, Scratch* scratch) {
  Axis axis{scratch->take<Span>(std::min(size, grid)), 0, scratch->take<float>(size + kSpanPadding)};
  const double ratio = static_cast<double>(grid) / static_cast<double>(size);
  for (int64_t i = 0; i < size; ++i) {
    const double at =
        std::clamp((static_cast<double>(i) + 0.5) * ratio - 0.5, 0.0, static_cast<double>(grid - 1));
    const int64_t low = static_cast<int64_t>(at);
    axis.fractions[i] = static_cast<float>(at - static_cast<double>(low));
    if (axis.count == 0 || axis.spans[axis.count - 1].low != low) {
      axis.spans[axis.count++] = {i, i, low, std::min(low + 1, grid - 1)};
    }
    axis.spans[axis.count - 1].end = i + 1;
  }
  std::fill_n(axis.fractions + size, kSpanPadding, 0.0f);
  return axis;
}

struct Job {
  const MaskTable& loops;
  const float* assignment;
  int64_t grid_width;
  int64_t k;
  int64_t width;
  Axis rows;
  Axis columns;
  int32_t* labels;
  float* confidence;
};

// Memory of one thread.
struct Work {
  Candidates* candidates;  // [column spans]
  int32_t* names;          // [column spans, k]
  float* line;             // [grid_width, k]
  float* base;             // [k]
  float* slope;            // [k]
  int32_t* labels;         // [width + padding]
  float* confidence;       // [width + padding]
};

Work make_work(const Job& job, Scratch* scratch) {
  return {scratch->take<Candidates>(job.columns.count),
          scratch->take<int32_t>(job.columns.count * job.k),
          scratch->take<float>(job.grid_width * job.k),
          scratch->take<float>(job.k),
          scratch->take<float>(job.k),
          scratch->take<int32_t>(job.width + kSpanPadding),
          scratch->take<float>(job.width + kSpanPadding)};
}

// A class below another one at all four corners of a cell is below it everywhere inside.
Candidates find_candidates(const Job& job, const Span& row, const Span& column, int32_t* names) {
  const float* corners[4] = {job.assignment + (row.low * job.grid_width + column.low) * job.k,
                             job.assignment + (row.low * job.grid_width + column.high) * job.k,
                             job.assignment + (row.high * job.grid_width + column.low) * job.k,
                             job.assignment + (row.high * job.grid_width + column.high) * job.k};
  int64_t strongest = 0;
  float largest = 0.0f;
  for (int64_t c = 0; c < job.k; ++c) {
    const float total = (corners[0][c] + corners[1][c]) + (corners[2][c] + corners[3][c]);
    if (c == 0 || total > largest) {
      largest = total;
      strongest = c;
    }
  }
  Candidates found{names, 0};
  for (int64_t c = 0; c < job.k; ++c) {
    bool beaten = true;
    for (const float* corner : corners) beaten = beaten && corner[c] < corner[strongest];
    if (!beaten) names[found.count++] = static_cast<int32_t>(c);
  }
  return found;
}

void find_row_candidates(const Job& job, const Span& row, const Work& work) {
  for (int64_t s = 0; s < job.columns.count; ++s) {
    work.candidates[s] = find_candidates(job, row, job.columns.spans[s], work.names + s * job.k);
  }
}

void interpolate_line(const Job& job, const Span& row, float fraction, float* line) {
  const float* low = job.assignment + row.low * job.grid_width * job.k;
  const float* high = job.assignment + row.high * job.grid_width * job.k;
  for (int64_t i = 0; i < job.grid_width * job.k; ++i) line[i] = low[i] + fraction * (high[i] - low[i]);
}

void fill_span(const Job& job, const Span& span, const Candidates& candidates, const Work& work) {
  if (candidates.count == 1 && job.confidence == nullptr) {
    std::fill(work.labels + span.begin, work.labels + span.end, candidates.names[0]);
    return;
  }
  const float* low = work.line + span.low * job.k;
  const float* high = work.line + span.high * job.k;
  for (int64_t c = 0; c < candidates.count; ++c) {
    const int32_t name = candidates.names[c];
    work.base[c] = low[name];
    work.slope[c] = high[name] - low[name];
  }
  job.loops.argmax_span(span.end - span.begin, job.columns.fractions + span.begin, candidates.count,
                        work.base, work.slope, candidates.names, work.labels + span.begin,
                        job.confidence == nullptr ? nullptr : work.confidence + span.begin);
}

void fill_rows(const Job& job, int64_t begin, int64_t end) {
  Scratch scratch;
  const Work work = make_work(job, &scratch);
  const Span* row = job.rows.spans;
  while (row->end <= begin) ++row;
  find_row_candidates(job, *row, work);
  for (int64_t y = begin; y < end; ++y) {
    if (y == row->end) find_row_candidates(job, *++row, work);
    interpolate_line(job, *row, job.rows.fractions[y], work.line);
    for (int64_t s = 0; s < job.columns.count; ++s) {
      fill_span(job, job.columns.spans[s], work.candidates[s], work);
    }
    std::copy_n(work.labels, job.width, job.labels + y * job.width);
    if (job.confidence != nullptr) std::copy_n(work.confidence, job.width, job.confidence + y * job.width);
  }
}

}  // namespace

void upsample_argmax_cpu(const float* assignment, int64_t grid_height, int64_t grid_width, int64_t k,
                         int64_t height, int64_t width, int32_t* labels, float* confidence) {
  const SimdTable& table = simd();
  const float largest = table.largest_magnitude(grid_height * grid_width * k, assignment);
  require_finite(std::isfinite(largest), "upsample_argmax", "assignment");
  require(largest <= kLargestAssignment, "upsample_argmax",
          "assignment must be at most 2^125 (4e37) in magnitude, got " + std::to_string(largest));
  Scratch scratch;
  const Job job{table.get<MaskTable>(),
                assignment,
                grid_width,
                k,
                width,
                make_axis(grid_height, height, &scratch),
                make_axis(grid_width, width, &scratch),
                labels,
                confidence};
  parallel_for(height, width / 2 + grid_width * k,
               [&](int64_t begin, int64_t end) { fill_rows(job, begin, end); });
}

}  // namespace patchcut
