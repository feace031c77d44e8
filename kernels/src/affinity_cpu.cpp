#include <algorithm>
#include <atomic>
#include <limits>
#include <stdexcept>

#include "feature_rows.h"
#include "patchcut/affinity.h"
#include "scratch.h"
#include "simd.h"
#include "thread_pool.h"

namespace patchcut {
namespace {

struct Job {
  const SimdTable& simd;
  const AffinityParams& params;
  const float* features;
  int64_t n;
  int64_t d;
  int64_t blocks;       // of simd.panel rows
  float* rows;          // [n, d], normalised where the kind is cosine
  float* packed;        // [blocks, d, panel], the same, transposed
  float* block_sums;    // [blocks, blocks * panel]: what one block of columns adds to each row's sum
  float* block_maxima;  // [blocks, blocks], upper triangle
  float* affinity;      // [n, n]

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
  float* target = job.rows + first * job.d;
  if (!job.simd.all_finite(rows * job.d, source)) return false;
  for (int64_t i = 0; i < rows; ++i) {
    if (job.params.cosine) {
      normalize_row(job.simd, job.d, source + i * job.d, target + i * job.d);
    } else {
      std::copy_n(source + i * job.d, job.d, target + i * job.d);
    }
  }
  job.simd.pack_transposed(rows, job.d, target, job.d, job.packed + first * job.d);
  return true;
}

void require_no_overflow(bool finite) {
  if (!finite) {
    throw std::invalid_argument(
        "[affinity] features overflow: products and sums of theirs must fit float32, got NaN or infinity");
  }
}

void pack_features(const Job& job) {
  std::atomic<bool> finite{true};
  parallel_for(job.blocks, job.simd.panel * job.d * 2, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      if (!pack_block(job, block)) finite.store(false, std::memory_order_relaxed);
    }
  });
  if (!finite) throw std::invalid_argument("[affinity] features must be finite, got NaN or infinity");
}

// One tile of the upper triangle, and its mirror image below. Returns whether it is finite.
bool fill_tile(const Job& job, int64_t block_i, int64_t block_j, float* tile) {
  const int64_t panel = job.simd.panel;
  const int64_t rows = job.rows_of(block_i);
  const int64_t cols = job.rows_of(block_j);
  const int64_t i0 = job.first_row(block_i);
  const int64_t j0 = job.first_row(block_j);
  job.simd.gemm_panel(rows, job.d, job.rows + i0 * job.d, job.d, job.packed + j0 * job.d, tile, panel, panel);
  if (!job.params.cosine && !job.simd.all_finite(rows * panel, tile)) return false;
  const float limit = job.params.cosine ? 1.0f : std::numeric_limits<float>::max();
  const bool sparse = job.params.mode == AffinityMode::kNCut;
  float* column_sums = tile + panel * panel;
  job.block_maxima[block_i * job.blocks + block_j] = job.simd.finish_affinity_tile(
      rows, tile, limit, job.params.threshold, sparse, job.sums(block_i, block_j), column_sums);
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(tile + i * panel, cols, job.affinity + (i0 + i) * job.n + j0);
  }
  if (block_i == block_j) return true;
  std::copy_n(column_sums, panel, job.sums(block_j, block_i));
  job.simd.store_transposed(rows, cols, tile, job.affinity + j0 * job.n + i0, job.n);
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
    job.simd.offset_row(count, rows, -share, rows);
    // A cosine less a share below 1e38 cannot overflow.
    if ((!job.params.cosine || !(share < 1e38f)) && !job.simd.all_finite(count, rows)) {
      finite.store(false, std::memory_order_relaxed);
    }
  });
  require_no_overflow(finite);
  return share;
}

void add_degrees(const Job& job, double share, float* degrees) {
  for (int64_t i = 0; i < job.n; ++i) {
    double total = -share * static_cast<double>(job.n);
    for (int64_t block = 0; block < job.blocks; ++block) {
      total += job.block_sums[block * job.blocks * job.simd.panel + i];
    }
    degrees[i] = static_cast<float>(total);
  }
  require_no_overflow(job.simd.all_finite(job.n, degrees));
}

}  // namespace

void affinity_cpu(const float* features, int64_t n, int64_t d, const AffinityParams& params, float* affinity,
                  float* degrees) {
  if (n == 0) return;
  const SimdTable& table = simd();
  const int64_t blocks = (n + table.panel - 1) / table.panel;
  Scratch scratch;
  const Job job{table,
                params,
                features,
                n,
                d,
                blocks,
                scratch.take<float>(n * d),
                scratch.take<float>(blocks * table.panel * d),
                scratch.take<float>(blocks * blocks * table.panel),
                scratch.take<float>(blocks * blocks),
                affinity};
  pack_features(job);
  fill_tiles(job);
  const bool signed_mode = params.mode == AffinityMode::kCorrelationClustering;
  const float share = signed_mode ? subtract_share_of_maximum(job) : 0.0f;
  if (degrees != nullptr) add_degrees(job, share, degrees);
}

}  // namespace patchcut
