#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "clusters/kmeans.h"
#include "clusters/simd.h"
#include "cpu/errors.h"
#include "cpu/feature_rows.h"
#include "cpu/interrupt.h"
#include "cpu/random.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace patchcut {
namespace {

// Centroids whose distances to a panel of points stay in the L1 cache.
constexpr int64_t kCentroidBlock = 64;
// Columns of one task of an update.
constexpr int64_t kColumnBlock = 64;
constexpr int64_t kMaxCandidates = 64;  // 2 + log(k) for every k
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Job {
  const SimdTable& simd;
  const ClusterTable& loops;
  const patchcut_kmeans_params& params;
  int64_t n;
  int64_t d;
  int64_t k;
  int64_t blocks;     // of simd.panel points
  float scale;        // a power of two that points are multiplied by, see scale_of
  const float* rows;  // [n, d], unit rows where the metric is cosine, scaled points where the scale is not 1
  float* packed;      // [blocks, d, panel], the same, transposed

  bool cosine() const { return params.metric == PATCHCUT_COSINE_DISTANCE; }
  int64_t padded() const { return blocks * simd.panel; }
  int64_t rows_of(int64_t block) const { return std::min(simd.panel, n - block * simd.panel); }
  const float* panel_of(int64_t block) const { return packed + block * simd.panel * d; }
};

// One run. Double sums let points move between clusters without drift.
struct Run {
  float* centroids;  // [k, d]
  double* sums;      // [k, d], of the points that `summed` says
  int64_t* counts;   // [k], of `labels`
  int32_t* labels;   // [padded]
  float* distances;  // [padded], squared, to the own centroid
  int32_t* summed;   // [n], the labels that the sums are of, -1 at first
  int64_t* moved;    // [n], room for the points whose label is another than that
};

template <class Body>
void for_blocks(const Job& job, int64_t rows, const Body& body) {
  parallel_for(job.blocks, rows * job.d * job.simd.panel / 16, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) body(block);
  });
}

// 1 where squares of what is of this magnitude, and of much less, are floats; else what brings it near 1.
float scale_of(float largest) {
  if (largest == 0.0f || (largest >= 0x1p-32f && largest <= 0x1p48f)) return 1.0f;
  return std::ldexp(1.0f, std::clamp(-std::ilogb(largest), -126, 126));
}

// Packs job.rows, which are the points or, where `unit` is not null, lie there once they are normalised.
// Returns the largest magnitude of the points.
float pack_points(const Job& job, const float* points, float* unit) {
  std::atomic<float> largest{0.0f};
  std::atomic<bool> finite{true};
  for_blocks(job, 4, [&](int64_t block) {
    const int64_t first = block * job.simd.panel * job.d;
    const int64_t rows = job.rows_of(block);
    const float magnitude = job.simd.largest_magnitude(rows * job.d, points + first);
    if (!std::isfinite(magnitude)) return finite.store(false);
    float before = largest.load(std::memory_order_relaxed);
    while (magnitude > before && !largest.compare_exchange_weak(before, magnitude)) {
    }
    for (int64_t i = 0; unit != nullptr && i < rows; ++i) {
      normalize_row(job.simd, job.d, points + first + i * job.d, unit + first + i * job.d);
    }
    job.simd.pack_transposed(rows, job.d, job.rows + first, job.d, job.packed + first);
  });
  require_finite(finite, "kmeans", "points");
  return largest;
}

// Lets `scaled` [n, d] be the rows.
void scale_points(const float* points, float scale, float* scaled, Job* job) {
  job->scale = scale;
  job->rows = scaled;
  parallel_for(job->n, job->d / 8, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * job->d;
    job->simd.scale_row((end - begin) * job->d, points + first, scale, scaled + first);
  });
  pack_points(*job, scaled, nullptr);
}

// ---- the first centroids

// Greedy k-means++: of several points, each drawn with a chance proportional to its squared distance to the
// nearest centroid, the one that leaves the least of these distances.
struct Seeding {
  int64_t candidates;
  float* rows;           // [candidates, d]
  float* distances;      // [blocks, candidates, panel], to the nearest centroid if the candidate were one
  double* block_sums;    // [blocks, candidates], of distances
  float* closest;        // [padded], squared distance to the nearest centroid
  double* closest_sums;  // [blocks]
};

// Two neighbours that are apart from all others leave the same: rounding must not choose between them.
int64_t first_least(const double* totals, int64_t count) {
  const double limit = *std::min_element(totals, totals + count) * (1.0 + 1e-5);
  return std::find_if(totals, totals + count - 1, [limit](double total) { return total <= limit; }) - totals;
}

// Makes the best of the first `count` candidates a centroid, and returns which one that is.
int64_t take_best(const Job& job, const Seeding& seeding, int64_t count) {
  const int64_t panel = job.simd.panel;
  for_blocks(job, count, [&](int64_t block) {
    float* distances = seeding.distances + block * seeding.candidates * panel;
    job.loops.squared_distances(count, job.d, seeding.rows, job.panel_of(block), distances);
    for (int64_t i = 0; i < count; ++i) {
      seeding.block_sums[block * seeding.candidates + i] =
          job.loops.lower_row(job.rows_of(block), seeding.closest + block * panel, distances + i * panel);
    }
  });
  double totals[kMaxCandidates] = {};
  for (int64_t block = 0; block < job.blocks; ++block) {
    for (int64_t i = 0; i < count; ++i) totals[i] += seeding.block_sums[block * seeding.candidates + i];
  }
  const int64_t best = first_least(totals, count);
  for (int64_t block = 0; block < job.blocks; ++block) {
    const int64_t at = block * seeding.candidates + best;
    std::copy_n(seeding.distances + at * panel, panel, seeding.closest + block * panel);
    seeding.closest_sums[block] = seeding.block_sums[at];
  }
  return best;
}

// The first point at which the running sum of `closest` exceeds a share of the whole.
int64_t draw_point(const Job& job, const Seeding& seeding, double share) {
  double total = 0.0;
  for (int64_t block = 0; block < job.blocks; ++block) total += seeding.closest_sums[block];
  const double target = share * total;
  double sum = 0.0;
  int64_t block = 0;
  while (block + 1 < job.blocks && sum + seeding.closest_sums[block] <= target) {
    sum += seeding.closest_sums[block++];
  }
  const int64_t first = block * job.simd.panel;
  for (int64_t i = first; i < first + job.rows_of(block); ++i) {
    sum += seeding.closest[i];
    if (sum > target) return i;
  }
  return first + job.rows_of(block) - 1;
}

void plus_plus(const Job& job, int64_t restart, float* centroids) {
  const int64_t candidates = 2 + static_cast<int64_t>(std::log(static_cast<double>(job.k)));
  Scratch scratch;
  const Seeding seeding{candidates,
                        scratch.take<float>(candidates * job.d),
                        scratch.take<float>(candidates * job.padded()),
                        scratch.take<double>(candidates * job.blocks),
                        scratch.take<float>(job.padded()),
                        scratch.take<double>(job.blocks)};
  std::fill_n(seeding.closest, job.padded(), kInfinity);
  const RandomStream random(job.params.seed, static_cast<uint64_t>(restart));
  for (int64_t c = 0; c < job.k; ++c) {
    const int64_t count = c == 0 ? 1 : candidates;
    for (int64_t i = 0; i < count; ++i) {
      const double share = random.uniform(static_cast<uint64_t>(c == 0 ? 0 : 1 + (c - 1) * candidates + i));
      const int64_t point =
          c == 0 ? static_cast<int64_t>(share * static_cast<double>(job.n)) : draw_point(job, seeding, share);
      std::copy_n(job.rows + point * job.d, job.d, seeding.rows + i * job.d);
    }
    const int64_t best = take_best(job, seeding, count);
    std::copy_n(seeding.rows + best * job.d, job.d, centroids + c * job.d);
  }
}

// ---- Lloyd's algorithm

void label_points(const Job& job, const Run& run) {
  const int64_t panel = job.simd.panel;
  const int64_t k = job.k;
  for_blocks(job, k, [&](int64_t block) {
    Scratch scratch;
    float* distances = scratch.take<float>(kCentroidBlock * panel);
    float* nearest = run.distances + block * panel;
    int32_t* labels = run.labels + block * panel;
    std::fill_n(nearest, panel, kInfinity);
    std::fill_n(labels, panel, 0);
    for (int64_t c = 0; c < k; c += kCentroidBlock) {
      const int64_t count = std::min(kCentroidBlock, k - c);
      job.loops.squared_distances(count, job.d, run.centroids + c * job.d, job.panel_of(block), distances);
      job.loops.lower_minima(count, static_cast<int32_t>(c), distances, nearest, labels);
    }
  });
}

// The point farthest from its centroid, of clusters of two or more; -1 where all lie on theirs. Unit rows and
// their means are rounded.
int64_t farthest_point(const Job& job, const Run& run) {
  int64_t farthest = -1;
  float distance = job.cosine() ? 1e-12f : 0.0f;
  for (int64_t i = 0; i < job.n; ++i) {
    if (run.distances[i] <= distance || run.counts[run.labels[i]] < 2) continue;
    farthest = i;
    distance = run.distances[i];
  }
  return farthest;
}

void reseed_empty_clusters(const Job& job, const Run& run) {
  std::fill_n(run.counts, job.k, 0);
  for (int64_t i = 0; i < job.n; ++i) ++run.counts[run.labels[i]];
  for (int64_t c = 0; c < job.k; ++c) {
    if (run.counts[c] > 0) continue;
    check_interrupt();
    const int64_t point = farthest_point(job, run);
    if (point < 0) return;
    --run.counts[run.labels[point]];
    ++run.counts[c];
    run.labels[point] = static_cast<int32_t>(c);
    run.distances[point] = 0.0f;
    std::copy_n(job.rows + point * job.d, job.d, run.centroids + c * job.d);
  }
}

// Brings the sums up to date; only points that changed their cluster cost anything.
void move_points(const Job& job, const Run& run) {
  int64_t count = 0;
  for (int64_t i = 0; i < job.n; ++i) {
    if (run.labels[i] != run.summed[i]) run.moved[count++] = i;
  }
  const int64_t column_blocks = (job.d + kColumnBlock - 1) / kColumnBlock;
  parallel_for(column_blocks, count * kColumnBlock / 4, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kColumnBlock;
    const int64_t columns = std::min(job.d, end * kColumnBlock) - first;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t i = run.moved[t];
      double* from = run.summed[i] < 0 ? nullptr : run.sums + run.summed[i] * job.d + first;
      job.loops.move_row(columns, job.rows + i * job.d + first, from,
                         run.sums + run.labels[i] * job.d + first);
    }
  });
  std::copy_n(run.labels, job.n, run.summed);
}

void update_centroid(const Job& job, const Run& run, int64_t c) {
  if (run.counts[c] == 0) return;
  const double* sum = run.sums + c * job.d;
  float* centroid = run.centroids + c * job.d;
  if (job.cosine() && std::all_of(sum, sum + job.d, [](double x) { return x == 0.0; })) return;
  const double share = 1.0 / static_cast<double>(run.counts[c]);
  for (int64_t j = 0; j < job.d; ++j) centroid[j] = static_cast<float>(sum[j] * share);
  if (job.cosine()) normalize_row(job.simd, job.d, centroid, centroid);
}

void lloyd(const Job& job, const Run& run) {
  std::fill_n(run.sums, job.k * job.d, 0.0);
  std::fill_n(run.summed, job.n, -1);
  label_points(job, run);
  reseed_empty_clusters(job, run);
  for (int64_t iteration = 0; iteration < job.params.iterations; ++iteration) {
    move_points(job, run);
    parallel_for(job.k, job.d, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) update_centroid(job, run, c);
    });
    label_points(job, run);
    reseed_empty_clusters(job, run);
    if (std::equal(run.labels, run.labels + job.n, run.summed)) return;
  }
}

// Of rows, which may be scaled.
double inertia_of(const Job& job, const Run& run) {
  double total = 0.0;
  for (int64_t i = 0; i < job.n; ++i) total += run.distances[i];
  return job.cosine() ? 0.5 * total : total;
}

float unscaled_inertia(const Job& job, double inertia) {
  const float unscaled = static_cast<float>(inertia / job.scale / job.scale);
  require(std::isfinite(unscaled), "kmeans",
          "points overflow: squared distances and their sum must fit float32, got NaN or infinity");
  return unscaled;
}

float largest_of_init(const Job& job, const float* init) {
  const float largest = job.simd.largest_magnitude(job.k * job.d, init);
  require_finite(std::isfinite(largest), "kmeans", "init");
  return largest;
}

// init, scaled as the points are, or its unit rows.
void copy_centroids(const Job& job, const float* init, float* centroids) {
  for (int64_t c = 0; c < job.k; ++c) {
    if (job.cosine()) {
      normalize_row(job.simd, job.d, init + c * job.d, centroids + c * job.d);
    } else {
      job.simd.scale_row(job.d, init + c * job.d, job.scale, centroids + c * job.d);
    }
  }
}

}  // namespace

void kmeans_cpu(const float* points, int64_t n, int64_t d, int64_t k, const patchcut_kmeans_params& params,
                const float* init, int32_t* labels, float* centroids, float* inertia) {
  const SimdTable& table = simd();
  const int64_t blocks = (n + table.panel - 1) / table.panel;
  Scratch scratch;
  float* unit = params.metric == PATCHCUT_COSINE_DISTANCE ? scratch.take<float>(n * d) : nullptr;
  Job job{table,
          table.get<ClusterTable>(),
          params,
          n,
          d,
          k,
          blocks,
          1.0f,
          unit == nullptr ? points : unit,
          scratch.take<float>(blocks * table.panel * d)};
  const Run run{scratch.take<float>(k * d),        scratch.take<double>(k * d),
                scratch.take<int64_t>(k),          scratch.take<int32_t>(job.padded()),
                scratch.take<float>(job.padded()), scratch.take<int32_t>(n),
                scratch.take<int64_t>(n)};
  float largest = pack_points(job, points, unit);
  if (init != nullptr) largest = std::max(largest, largest_of_init(job, init));
  if (const float scale = scale_of(largest); unit == nullptr && scale != 1.0f) {
    scale_points(points, scale, scratch.take<float>(n * d), &job);
  }
  float best = kInfinity;
  for (int64_t restart = 0; restart < params.restarts; ++restart) {
    if (init != nullptr) {
      copy_centroids(job, init, run.centroids);
    } else {
      plus_plus(job, restart, run.centroids);
    }
    lloyd(job, run);
    const double found = inertia_of(job, run);
    if (restart > 0 && static_cast<float>(found) >= best) continue;
    best = static_cast<float>(found);
    *inertia = unscaled_inertia(job, found);
    std::copy_n(run.labels, n, labels);
    table.scale_row(k * d, run.centroids, 1.0f / job.scale, centroids);
  }
}

}  // namespace patchcut
