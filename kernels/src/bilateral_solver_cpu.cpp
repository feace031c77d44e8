#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <utility>

#include "bilateral_grid.h"
#include "patchcut/bilateral_solver.h"
#include "scratch.h"
#include "simd.h"
#include "simd_solver.h"
#include "thread_pool.h"

namespace patchcut {
namespace {

constexpr int64_t kBlockQuads = 256;  // whose sums are added up by one thread

struct Job {
  const SolverTable& loops;
  BilateralGrid grid;
  int64_t width;
  SolverVectors v;
  double* block_sums;  // [blocks]

  int64_t blocks() const { return (grid.quads + kBlockQuads - 1) / kBlockQuads; }
};

// Calls body(block, first quad, last quad + 1) for blocks of quads.
template <class Body>
void for_blocks(const Job& job, int64_t cycles_per_quad, const Body& body) {
  parallel_for(job.blocks(), kBlockQuads * cycles_per_quad, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      body(block, block * kBlockQuads, std::min(job.grid.quads, (block + 1) * kBlockQuads));
    }
  });
}

// The same of a body that gives a sum; blocks are added in their order, whoever had them.
template <class Body>
double sum_blocks(const Job& job, int64_t cycles_per_quad, const Body& body) {
  for_blocks(job, cycles_per_quad,
             [&](int64_t block, int64_t begin, int64_t end) { job.block_sums[block] = body(begin, end); });
  double total = 0.0;
  for (int64_t block = 0; block < job.blocks(); ++block) total += job.block_sums[block];
  return total;
}

constexpr int64_t kBlurCycles = 10;   // of a quad
constexpr int64_t kVectorCycles = 3;  // of a quad

struct Sums {
  float* mass;    // [quads, 4]
  float* weight;  // [quads, 4]
  float* right;   // [quads, 4]
};

// Adds the pixels of a row of cells to their vertices; returns whether all confidence is at least 0.
bool splat_row(const BilateralGrid& grid, int64_t cell_row, const float* soft_map, const float* confidence,
               int64_t width, const Sums& sums) {
  const int64_t first = grid.quad_starts[cell_row] * kQuad;
  const int64_t count = grid.quad_starts[cell_row + 1] * kQuad - first;
  for (float* sum : {sums.mass, sums.weight, sums.right}) std::fill_n(sum + first, count, 0.0f);
  float least = 0.0f;
  for (int64_t i = grid.row_starts[cell_row] * width; i < grid.row_starts[cell_row + 1] * width; ++i) {
    const int64_t vertex = first + grid.vertices[i];
    sums.mass[vertex] += 1.0f;
    sums.weight[vertex] += confidence[i];
    sums.right[vertex] += confidence[i] * soft_map[i];
    least = std::min(least, confidence[i]);
  }
  return least >= 0.0f;
}

void splat(const Job& job, const float* soft_map, const float* confidence, const Sums& sums) {
  std::atomic<bool> positive{true};
  const BilateralGrid& grid = job.grid;
  parallel_for(grid.cell_rows, grid.row_starts[1] * job.width * 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (!splat_row(grid, row, soft_map, confidence, job.width, sums)) {
        positive.store(false, std::memory_order_relaxed);
      }
    }
  });
  if (!positive) throw std::invalid_argument("[bilateral_solver] confidence must be at least 0");
  // What is not finite in a pixel is not in its sum.
  const int64_t vertices = grid.quads * kQuad;
  if (!simd().all_finite(vertices, sums.weight) || !simd().all_finite(vertices, sums.right)) {
    throw std::invalid_argument(
        "[bilateral_solver] map and confidence must be finite, and their sums, got NaN or infinity");
  }
}

// D_n of the paper's algorithm 1, for which D_n B D_n has the sums that the mass has.
void bistochastize(int64_t iterations, Job* job) {
  SolverVectors& v = job->v;
  for (int64_t i = 0; i < job->grid.quads * kQuad; ++i) v.scale[i] = v.mass[i] > 0.0f ? 1.0f : 0.0f;
  for (int64_t i = 0; i < iterations; ++i) {
    for_blocks(*job, kBlurCycles, [&](int64_t, int64_t begin, int64_t end) {
      job->loops.balance(begin, end, job->grid.neighbours, v);
    });
    std::swap(v.scale, v.next_scale);
  }
}

// Squared residuals below these, of the first one and absolute, change nothing in float32; smaller ones could
// vanish from one sum and not from another, whose quotient is then a step to anywhere.
constexpr double kNegligible = 1e-20;
constexpr double kVanishing = 1e-30;

// Conjugate gradients with the Jacobi preconditioner.
void solve(const Job& job, const BilateralSolverParams& params) {
  const SolverVectors& v = job.v;
  const int32_t* neighbours = job.grid.neighbours;
  for_blocks(job, kBlurCycles, [&](int64_t, int64_t begin, int64_t end) {
    job.loops.set_up(begin, end, neighbours, params.smoothness, v);
  });
  double squared = sum_blocks(job, kBlurCycles, [&](int64_t begin, int64_t end) {
    return job.loops.residual(begin, end, neighbours, v);
  });
  const double negligible = std::max(squared * kNegligible, kVanishing);
  float beta = 0.0f;
  for (int64_t i = 0; i < params.iterations && squared > negligible; ++i) {
    for_blocks(job, kVectorCycles,
               [&](int64_t, int64_t begin, int64_t end) { job.loops.turn(begin, end, beta, v); });
    const double curvature = sum_blocks(job, kBlurCycles, [&](int64_t begin, int64_t end) {
      return job.loops.apply(begin, end, neighbours, v);
    });
    if (!(curvature > 0.0)) return;
    const float alpha = static_cast<float>(squared / curvature);
    const double before = squared;
    squared = sum_blocks(job, kVectorCycles,
                         [&](int64_t begin, int64_t end) { return job.loops.step(begin, end, alpha, v); });
    beta = static_cast<float>(squared / before);
  }
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
                          int64_t height, int64_t width, const BilateralSolverParams& params, float* out) {
  if (height == 0 || width == 0) return;
  Scratch scratch;
  const BilateralGrid grid = make_bilateral_grid(frame, height, width, params, &scratch);
  const auto take = [&] {
    float* vector = scratch.take<float>((grid.quads + 1) * kQuad);
    std::fill_n(vector + grid.quads * kQuad, kQuad, 0.0f);
    return vector;
  };
  const Sums sums{take(), take(), take()};
  Job job{*simd().solver,
          grid,
          width,
          {sums.mass, sums.weight, sums.right, take(), take(), take(), take(), take(), take(), take()},
          nullptr};
  job.block_sums = scratch.take<double>(job.blocks());
  splat(job, soft_map, confidence, sums);
  bistochastize(params.bistochastic_iterations, &job);
  solve(job, params);
  slice(job, out);
}

}  // namespace patchcut
