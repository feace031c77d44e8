// The product is our own and not a BLAS's. At 1,369 x 384 on two cores of a Zen 5 all of affinity_cpu takes
// 2.0 ms in turns with ssyrk alone at 3.3 ms in OpenBLAS 0.3.34, 1.9 ms with its AVX-512 kernels forced (it
// chooses those of AVX2 there) and 8 ms in MKL 2026.2. ssyrk leaves threshold, mirror image and degrees to a
// second pass, adds 25 MB to the wheel (MKL 375 MB), and its idle threads spin where ours are to run, for
// 0.1 s. Tiles by single-threaded sgemm, each finished while in cache, reach 193 GFLOP/s a core; ours 250.

#include <algorithm>
#include <atomic>
#include <limits>

#include "cpu/errors.h"
#include "cpu/feature_rows.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "cpu/thread_pool.h"
#include "nodes/affinity.h"
#include "nodes/simd.h"

namespace patchcut {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();

struct Job {
  const SimdTable& simd;
  const NodeTable& loops;
  const patchcut_affinity_params& params;
  const float* features;
  int64_t n;
  int64_t d;
  int64_t blocks;       // of simd.panel rows
  float* packed;        // [blocks, d, panel], transposed, normalised where the kind is cosine
  float* block_sums;    // [blocks, blocks * panel]: what one block of columns adds to each row's sum
  float* block_maxima;  // [blocks, blocks], upper triangle
  float* affinity;      // [n, n]

  bool cosine() const { return params.kind == PATCHCUT_COSINE; }
  int64_t first_row(int64_t block) const { return block * simd.panel; }
  int64_t rows_of(int64_t block) const { return std::min(simd.panel, n - first_row(block)); }
  float* sums(int64_t of_rows, int64_t from_columns) const {
    return block_sums + (from_columns * blocks + of_rows) * simd.panel;
  }
};

bool pack_block(const Job& job, int64_t block) {
  const int64_t first = job.first_row(block);
  const int64_t rows = job.rows_of(block);
  const float* source = job.features + first * job.d;
  if (!job.simd.all_finite(rows * job.d, source)) return false;
  Scratch scratch;
  if (job.cosine()) {
    float* unit = scratch.take<float>(rows * job.d);
    for (int64_t i = 0; i < rows; ++i) normalize_row(job.simd, job.d, source + i * job.d, unit + i * job.d);
    source = unit;
  }
  job.simd.pack_transposed(rows, job.d, source, job.d, job.packed + first * job.d);
  return true;
}

void require_no_overflow(bool finite) {
  require(finite, "affinity",
          "features overflow: products and sums of theirs must fit float32, got NaN or infinity");
}

void pack_features(const Job& job) {
  std::atomic<bool> finite{true};
  parallel_for(job.blocks, job.simd.panel * job.d * 2, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      if (!pack_block(job, block)) finite.store(false, std::memory_order_relaxed);
    }
  });
  require_finite(finite, "affinity", "features");
}

// One tile of the upper triangle, and its mirror image below. Returns whether it is finite. Rows and columns
// past the last are zeros in `packed`, and so in the tile.
bool fill_tile(const Job& job, int64_t block_i, int64_t block_j, float* tile) {
  const int64_t panel = job.simd.panel;
  const int64_t i0 = job.first_row(block_i);
  const int64_t j0 = job.first_row(block_j);
  job.simd.gemm_panel(panel, job.d, job.packed + i0 * job.d, 1, panel, job.packed + j0 * job.d, tile, panel,
                      panel);
  if (!job.cosine() && !job.simd.all_finite(panel * panel, tile)) return false;
  const bool diagonal = block_i == block_j;
  float* unused = tile + panel * panel;
  job.block_maxima[block_i * job.blocks + block_j] = job.loops.finish_affinity_tile(
      {tile, job.rows_of(block_i), job.rows_of(block_j), job.cosine() ? 1.0f : kLargest, job.params.threshold,
       job.params.mode == PATCHCUT_NCUT, job.affinity + i0 * job.n + j0,
       diagonal ? nullptr : job.affinity + j0 * job.n + i0, job.n, job.sums(block_i, block_j),
       diagonal ? unused : job.sums(block_j, block_i)});
  return true;
}

void fill_tiles(const Job& job) {
  const int64_t panel = job.simd.panel;
  std::atomic<bool> finite{true};
  const int64_t tiles = job.blocks * (job.blocks + 1) / 2;
  parallel_for(tiles, panel * panel * job.d / 24, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    float* tile = scratch.take<float>(panel * (panel + 1));
    int64_t i = 0;
    int64_t j = begin;
    while (j >= job.blocks - i) j -= job.blocks - i++;
    j += i;
    for (int64_t t = begin; t < end; ++t) {
      if (!fill_tile(job, i, j, tile)) finite.store(false, std::memory_order_relaxed);
      if (++j == job.blocks) j = ++i;
    }
  });
  require_no_overflow(finite);
}

float subtract_share_of_maximum(const Job& job) {
  float largest = job.block_maxima[0];
  for (int64_t i = 0; i < job.blocks; ++i) {
    const float* row = job.block_maxima + i * job.blocks;
    largest = std::max(largest, *std::max_element(row + i, row + job.blocks));
  }
  const float share = largest / job.params.alpha;
  std::atomic<bool> finite{true};
  parallel_for(job.n, job.n / 4, [&](int64_t begin, int64_t end) {
    float* rows = job.affinity + begin * job.n;
    const int64_t count = (end - begin) * job.n;
    job.loops.offset_row(count, rows, -share, rows);
    // A cosine less a share below 1e38 cannot overflow.
    if ((!job.cosine() || !(share < 1e38f)) && !job.simd.all_finite(count, rows)) {
      finite.store(false, std::memory_order_relaxed);
    }
  });
  require_no_overflow(finite);
  return share;
}

void add_degrees(const Job& job, double share, float* degrees) {
  Scratch scratch;
  double* totals = scratch.take<double>(job.n);
  std::fill_n(totals, job.n, -share * static_cast<double>(job.n));
  for (int64_t block = 0; block < job.blocks; ++block) {
    const float* sums = job.sums(0, block);
    for (int64_t i = 0; i < job.n; ++i) totals[i] += sums[i];
  }
  std::copy_n(totals, job.n, degrees);
  require_no_overflow(job.simd.all_finite(job.n, degrees));
}

}  // namespace

void affinity_cpu(const float* features, int64_t n, int64_t d, const patchcut_affinity_params& params,
                  float* affinity, float* degrees) {
  if (n == 0) return;
  const SimdTable& table = simd();
  const int64_t blocks = (n + table.panel - 1) / table.panel;
  Scratch scratch;
  const Job job{table,
                table.get<NodeTable>(),
                params,
                features,
                n,
                d,
                blocks,
                scratch.take<float>(blocks * table.panel * d),
                scratch.take<float>(blocks * blocks * table.panel),
                scratch.take<float>(blocks * blocks),
                affinity};
  pack_features(job);
  fill_tiles(job);
  const bool signed_mode = params.mode == PATCHCUT_CC;
  const float share = signed_mode ? subtract_share_of_maximum(job) : 0.0f;
  if (degrees != nullptr) add_degrees(job, share, degrees);
}

}  // namespace patchcut
