#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "cpu/errors.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "refine/bilateral_grid.h"
#include "refine/bilateral_solver.h"
#include "refine/solver_simd.h"

namespace patchcut {
namespace {

struct Job {
  const SolverTable& loops;
  BilateralGrid grid;
  int64_t width;
  SolverVectors v;
  double* block_sums;  // [blocks]

  int64_t blocks() const { return (grid.graph.quads + kBlockQuads - 1) / kBlockQuads; }
};

constexpr int64_t kBlockCycles = 12 * kBlockQuads;  // of the longest pass

// Calls body(block) for all blocks.
template <class Body>
void for_blocks(const Job& job, const Body& body) {
  parallel_shares(job.blocks(), kBlockCycles, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) body(block);
  });
}

// The same of a body that gives a sum; blocks are added in their order, whoever had them.
template <class Body>
double sum_blocks(const Job& job, const Body& body) {
  for_blocks(job, [&](int64_t block) { job.block_sums[block] = body(block); });
  double total = 0.0;
  for (int64_t block = 0; block < job.blocks(); ++block) total += job.block_sums[block];
  return total;
}

// What the pixels of some rows of cells are.
struct Values {
  bool positive;  // all confidence is at least 0
  bool finite;    // sums are; what is not finite in a pixel is not in its sum
};

// Sums up the pixels of a row of cells.
Values splat_row(const Job& job, int64_t cell_row, const float* soft_map, const float* confidence) {
  const BilateralGrid& grid = job.grid;
  const int64_t first = grid.quad_starts[cell_row] * kQuad;
  const int64_t vertices = grid.quad_starts[cell_row + 1] * kQuad - first;
  const int64_t pixel = grid.row_starts[cell_row] * job.width;
  const int64_t pixels = grid.row_starts[cell_row + 1] * job.width - pixel;
  Scratch scratch;
  float* sums = scratch.take<float>(vertices * kSums);
  std::fill_n(sums, vertices * kSums, 0.0f);
  const float least =
      job.loops.splat(pixels, grid.vertices + pixel, confidence + pixel, soft_map + pixel, sums);
  return {least >= 0.0f, job.loops.take_sums(first, vertices, sums, job.v)};
}

void splat(const Job& job, const float* soft_map, const float* confidence) {
  std::atomic<bool> positive{true};
  std::atomic<bool> finite{true};
  const BilateralGrid& grid = job.grid;
  parallel_for(grid.cell_rows, grid.row_starts[1] * job.width * 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Values values = splat_row(job, row, soft_map, confidence);
      if (!values.positive) positive.store(false, std::memory_order_relaxed);
      if (!values.finite) finite.store(false, std::memory_order_relaxed);
    }
  });
  require(positive, "bilateral_solver", "confidence must be at least 0");
  require(finite, "bilateral_solver",
          "map and confidence must be finite, and their sums, got NaN or infinity");
}

// D_n of the paper's algorithm 1, for which D_n B D_n has the sums that the mass has.
void bistochastize(int64_t iterations, Job* job) {
  for (int64_t i = 0; i < iterations; ++i) {
    for_blocks(*job, [&](int64_t block) { job->loops.balance(block, job->grid.graph, job->v); });
    std::swap(job->v.scale, job->v.next_scale);
  }
}

// Squared residuals below these, of the first one and absolute, change nothing in float32; smaller ones could
// vanish from one sum and not from another, whose quotient is then a step to anywhere.
constexpr double kNegligible = 1e-20;
constexpr double kVanishing = 1e-30;

// Conjugate gradients with the Jacobi preconditioner.
void solve(const Job& job, const patchcut_bilateral_solver_params& params) {
  const auto require_fits = [](bool finite) {
    require(finite, "bilateral_solver",
            "map, confidence and smoothness overflow: what is made of them must fit float32");
  };
  const SolverTable& loops = job.loops;
  const SolverVectors& v = job.v;
  const QuadGraph& graph = job.grid.graph;
  for_blocks(job, [&](int64_t block) { loops.set_up(block, graph, params.smoothness, v); });
  double squared = sum_blocks(job, [&](int64_t block) { return loops.residual(block, graph, v); });
  require_fits(std::isfinite(squared));
  const double negligible = std::max(squared * kNegligible, kVanishing);
  for (int64_t i = 0; i < params.iterations && squared > negligible; ++i) {
    const double curvature = sum_blocks(job, [&](int64_t block) { return loops.apply(block, graph, v); });
    require_fits(std::isfinite(curvature));
    if (curvature <= 0.0) break;
    const float alpha = static_cast<float>(squared / curvature);
    const double before = squared;
    squared = sum_blocks(job, [&](int64_t block) { return loops.step(block, graph, alpha, v); });
    require_fits(std::isfinite(squared));
    const float beta = static_cast<float>(squared / before);
    for_blocks(job, [&](int64_t block) { loops.turn(block, graph, alpha, beta, v); });
  }
  require_fits(simd().all_finite(graph.quads * kQuad, v.x));
}

// Gives each pixel the value of its vertex.
void slice(const Job& job, float* out) {
  const BilateralGrid& grid = job.grid;
  parallel_for(grid.cell_rows, grid.row_starts[1] * job.width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = grid.quad_starts[row] * kQuad;
      for (int64_t i = grid.row_starts[row] * job.width; i < grid.row_starts[row + 1] * job.width; ++i) {
        out[i] = job.v.x[first + grid.vertices[i]];
      }
    }
  });
}

}  // namespace

void bilateral_solver_cpu(const uint8_t* frame, const float* soft_map, const float* confidence,
                          int64_t height, int64_t width, const patchcut_bilateral_solver_params& params,
                          float* out) {
  if (height == 0 || width == 0) return;
  Scratch scratch;
  const BilateralGrid grid = make_bilateral_grid(frame, height, width, params, &scratch);
  const auto take = [&] {
    const int64_t vertices = grid.graph.quads * kQuad;
    float* vector = scratch.take<float>(vertices + kQuad);
    std::fill_n(vector + vertices, kQuad, 0.0f);
    return vector;
  };
  Job job{simd().get<SolverTable>(),
          grid,
          width,
          {take(), take(), take(), take(), take(), take(), take(), take(), take(), take()},
          nullptr};
  job.block_sums = scratch.take<double>(job.blocks());
  splat(job, soft_map, confidence);
  bistochastize(params.bistochastic_iterations, &job);
  solve(job, params);
  slice(job, out);
}

}  // namespace patchcut
