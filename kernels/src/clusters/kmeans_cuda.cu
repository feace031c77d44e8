// A kernel for each round of k-means++, and two for each iteration of Lloyd's algorithm: one takes every
// point to its nearest centroid, a warp a point; in the other a block adds up a part of the columns of one
// cluster's points, always in the same order. What needs all points is done by the block that is last:
// choosing among candidates and drawing the next ones, filling empty clusters, and seeing that no label has
// changed: the iterations that are left then return at once.
#include <cmath>

#include "clusters/cluster_sums.cuh"
#include "clusters/kmeans.h"
#include "cpu/random.h"
#include "cuda/arg_largest.cuh"
#include "cuda/last_block.cuh"
#include "cuda/launch.cuh"
#include "cuda/unit_rows.cuh"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kPointsOfBlock = 2 * kWarps;
constexpr int kGroup = 8;           // centroids whose distances a warp takes at once
constexpr int kMaxCandidates = 64;  // 2 + log(k) for every k

// Distances of one row to up to kGroup others: lane l gets that of others[l / 4]. The whole warp calls it.
template <class RowOf>
__device__ __forceinline__ float group_distance(const float* row, int stride, int count,
                                                const RowOf& row_of) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sums[kGroup];
  const float* others[kGroup];
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    sums[j] = 0.0f;
    others[j] = row_of(min(j, count - 1));
  }
  for (int p = 4 * lane; p < stride; p += 4 * kWarp) {
    const float4 x = *reinterpret_cast<const float4*>(row + p);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      if (j >= count) break;
      const float4 y = *reinterpret_cast<const float4*>(others[j] + p);
      const float a = x.x - y.x, b = x.y - y.y, c = x.z - y.z, d = x.w - y.w;
      sums[j] += a * a + b * b + c * c + d * d;
    }
  }
  // Halves the sums that a lane holds and the lanes that hold the same, so that 9 shuffles do for 8 sums.
  int lanes = kWarp / 2;
#pragma unroll
  for (int half = kGroup / 2; half > 0; half /= 2, lanes /= 2) {
#pragma unroll
    for (int j = 0; j < half; ++j) {
      const bool upper = (lane & lanes) != 0;
      const float other = __shfl_xor_sync(kAllLanes, upper ? sums[j] : sums[j + half], lanes);
      sums[j] = (upper ? sums[j + half] : sums[j]) + other;
    }
  }
  for (; lanes > 0; lanes /= 2) sums[0] += __shfl_xor_sync(kAllLanes, sums[0], lanes);
  return sums[0];
}

// Calls body(i) with every thread of a warp, for the points of the warp.
template <class Body>
__device__ __forceinline__ void for_points(int n, const Body& body) {
  const int first = static_cast<int>(blockIdx.x) * kPointsOfBlock + static_cast<int>(threadIdx.x) / kWarp;
  for (int i = first; i < min(n, (static_cast<int>(blockIdx.x) + 1) * kPointsOfBlock); i += kWarps) body(i);
}

// ---- the first centroids

struct Seeding {
  int candidates;
  int* drawn;          // [batch, candidates], points
  float* closest;      // [batch, 2, candidates, n], squared distance to the nearest centroid if the candidate
                       // were one: of this round and of the one before
  double* block_sums;  // [batch, candidates, blocks], of closest
  int* chosen;         // [batch], the candidate that became the last centroid
  int* arrived;        // [batch]
};

struct SeedingShared {
  float closest[kPointsOfBlock][kMaxCandidates];
  double totals[kMaxCandidates];
  double part_sums[kThreads];
  int chosen;
};

struct Round {
  int c;      // the centroid to be found
  int count;  // of candidates
  uint64_t seed;
  uint64_t stream;
};

// Leaves in `totals` what each candidate would leave, and returns the best of them.
__device__ int choose_candidate(const double* block_sums, int blocks, int count, SeedingShared& shared) {
  for (int t = static_cast<int>(threadIdx.x) / kWarp; t < count; t += kWarps) {
    double sum = 0.0;
    for (int b = static_cast<int>(threadIdx.x) % kWarp; b < blocks; b += kWarp) {
      sum += block_sums[static_cast<int64_t>(t) * blocks + b];
    }
    sum = reduce_warp(sum, Sum());
    if (threadIdx.x % kWarp == 0) shared.totals[t] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double least = shared.totals[0];
    for (int t = 1; t < count; ++t) least = fmin(least, shared.totals[t]);
    // Two neighbours that are apart from all others leave the same: rounding must not choose between them.
    int first = 0;
    while (first + 1 < count && !(shared.totals[first] <= least * (1.0 + 1e-5))) ++first;
    shared.chosen = first;
  }
  __syncthreads();
  return shared.chosen;
}

// The first point at which the running sum of `closest` exceeds `target`. part_sums are those of kThreads
// parts of the blocks.
__device__ int find_point(const double* part_sums, const double* block_sums, int blocks, const float* closest,
                          int n, double target) {
  const int blocks_of_part = ceil_div(blocks, kThreads);
  double sum = 0.0;
  int block = 0;
  for (int part = 0; part + 1 < kThreads && block + blocks_of_part < blocks; ++part) {
    if (!(sum + part_sums[part] <= target)) break;
    sum += part_sums[part];
    block += blocks_of_part;
  }
  for (; block + 1 < blocks && sum + block_sums[block] <= target; ++block) sum += block_sums[block];
  const int end = min(n, (block + 1) * kPointsOfBlock);
  for (int i = block * kPointsOfBlock; i < end; ++i) {
    sum += static_cast<double>(closest[i]);
    if (sum > target) return i;
  }
  return end - 1;
}

// For the next round.
__device__ void draw_candidates(const double* block_sums, int blocks, const float* closest, int n,
                                const Round& round, int candidates, double total, int* drawn,
                                SeedingShared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  const int blocks_of_part = ceil_div(blocks, kThreads);
  double sum = 0.0;
  for (int b = thread * blocks_of_part; b < min(blocks, (thread + 1) * blocks_of_part); ++b) {
    sum += block_sums[b];
  }
  shared.part_sums[thread] = sum;
  __syncthreads();
  if (thread >= candidates) return;
  const RandomStream random(round.seed, round.stream);
  const double share = random.uniform(1 + static_cast<uint64_t>(round.c) * candidates + thread);
  drawn[thread] = find_point(shared.part_sums, block_sums, blocks, closest, n, share * total);
}

// What one item's blocks work on in one round.
struct SeedingOfItem {
  int64_t item;
  int first;            // the point of the first round, which has no other candidate
  int* drawn;           // [candidates]
  const float* before;  // [n], closest of the round before; null in the first
  float* closest;       // [candidates, n]
  double* block_sums;   // [candidates, blocks]

  __device__ SeedingOfItem(const Seeding& seeding, const Round& round, int64_t item_, int n) : item(item_) {
    const auto closest_of = [&](int c) {
      return seeding.closest + (item * 2 + c % 2) * seeding.candidates * static_cast<int64_t>(n);
    };
    first = static_cast<int>(static_cast<double>(RandomStream(round.seed, round.stream).uniform(0)) * n);
    drawn = seeding.drawn + item * seeding.candidates;
    closest = closest_of(round.c);
    before =
        round.c == 0 ? nullptr : closest_of(round.c - 1) + seeding.chosen[item] * static_cast<int64_t>(n);
    block_sums = seeding.block_sums + item * seeding.candidates * gridDim.x;
  }

  __device__ int point_of(int candidate) const { return before == nullptr ? first : drawn[candidate]; }
};

// What each candidate would leave of a block's points.
__device__ void measure_candidates(const Points& points, const SeedingOfItem& own, int count,
                                   SeedingShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int n = points.n;
  for_points(n, [&](int i) {
    const float before = own.before == nullptr ? INFINITY : own.before[i];
    for (int t = 0; t < count; t += kGroup) {
      const float distance = group_distance(points.row(own.item, i), points.stride, count - t, [&](int j) {
        return points.row(own.item, own.point_of(min(t + j, count - 1)));
      });
      const int candidate = t + lane / (kWarp / kGroup);
      if (lane % (kWarp / kGroup) != 0 || candidate >= count) continue;
      const float closest = fminf(before, distance);
      own.closest[static_cast<int64_t>(candidate) * n + i] = closest;
      shared.closest[i % kPointsOfBlock][candidate] = closest;
    }
  });
  __syncthreads();
  const int rows = min(kPointsOfBlock, n - static_cast<int>(blockIdx.x) * kPointsOfBlock);
  for (int t = static_cast<int>(threadIdx.x); t < count; t += kThreads) {
    double sum = 0.0;
    for (int i = 0; i < rows; ++i) sum += static_cast<double>(shared.closest[i][t]);
    own.block_sums[static_cast<int64_t>(t) * gridDim.x + blockIdx.x] = sum;
  }
}

// One round of k-means++ of item blockIdx.y.
__global__ void __launch_bounds__(kThreads)
    seed_kernel(Points points, Seeding seeding, Round round, int k, float* centroids) {
  auto& shared = shared_memory<SeedingShared>();
  const int64_t item = blockIdx.y;
  const int blocks = static_cast<int>(gridDim.x);
  const SeedingOfItem own(seeding, round, item, points.n);
  measure_candidates(points, own, round.count, shared);
  if (!is_last_block(seeding.arrived + item, blocks)) return;

  const int chosen = choose_candidate(own.block_sums, blocks, round.count, shared);
  const float* centroid = points.row(item, own.point_of(chosen));
  for (int p = static_cast<int>(threadIdx.x); p < points.stride; p += kThreads) {
    centroids[(item * k + round.c) * points.stride + p] = centroid[p];
  }
  __syncthreads();  // all have read which points were drawn
  if (threadIdx.x == 0) seeding.chosen[item] = chosen;
  if (round.c + 1 == k) return;
  draw_candidates(own.block_sums + static_cast<int64_t>(chosen) * blocks, blocks,
                  own.closest + static_cast<int64_t>(chosen) * points.n, points.n, round, seeding.candidates,
                  shared.totals[chosen], own.drawn, shared);
}

// ---- Lloyd's algorithm

// One run of every item.
struct Run {
  float* centroids;      // [batch, k, stride]
  float* means;          // the same, before they have length 1; null where they need not
  int32_t* labels;       // [batch, n]
  int32_t* before;       // [batch, n], of the iteration before
  float* distances;      // [batch, n], squared, to the own centroid
  float* inertia;        // [batch]
  int* counts;           // [batch, k], of labels
  int* moved;            // [batch], points whose label is new
  int* arrived;          // [batch]
  int* cluster_arrived;  // [batch, k]
  int* done;             // [batch]
};

// What one label_kernel is.
struct Step {
  bool first;
  bool last;
  bool cosine;
};

// The point farthest from its centroid, of clusters of two or more; -1 where all lie on theirs.
__device__ int farthest_point(const Run& run, int64_t item, int n, int k, bool cosine) {
  const float least = cosine ? 1e-12f : 0.0f;
  IndexedValue farthest = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    const float distance = run.distances[item * n + i];
    if (distance > least && run.counts[item * k + run.labels[item * n + i]] > 1) {
      farthest = max(farthest, indexed(distance, i));
    }
  }
  farthest = reduce_block<kThreads>(farthest, Max());
  return farthest == 0 ? -1 : index_of(farthest);
}

// By the last block of a label_kernel.
__device__ void fill_empty_clusters(const Points& points, const Run& run, int64_t item, int k, bool cosine) {
  for (int c = 0; c < k; ++c) {
    if (run.counts[item * k + c] > 0) continue;
    const int point = farthest_point(run, item, points.n, k, cosine);
    if (point < 0) return;
    const float* row = points.row(item, point);
    for (int p = static_cast<int>(threadIdx.x); p < points.stride; p += kThreads) {
      run.centroids[(item * k + c) * points.stride + p] = row[p];
    }
    if (threadIdx.x == 0) {
      --run.counts[item * k + run.labels[item * points.n + point]];
      ++run.counts[item * k + c];
      run.labels[item * points.n + point] = c;
      run.distances[item * points.n + point] = 0.0f;
    }
    __syncthreads();
  }
}

__device__ int count_moved(const Run& run, int64_t item, int n) {
  int moved = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    moved += run.labels[item * n + i] != run.before[item * n + i];
  }
  return reduce_block<kThreads>(moved, Sum());
}

// By the last block of a label_kernel: empty clusters, and whether the run ends.
__device__ void finish_labels(const Points& points, const Run& run, int64_t item, int k, const Step& step) {
  const int n = points.n;
  int empty = 0;
  for (int c = static_cast<int>(threadIdx.x); c < k; c += kThreads) empty |= run.counts[item * k + c] == 0;
  int moved = run.moved[item];
  if (__syncthreads_or(empty)) {
    fill_empty_clusters(points, run, item, k, step.cosine);
    moved = count_moved(run, item, n);
  }
  const bool done = step.last || (!step.first && moved == 0);
  if (threadIdx.x == 0) {
    run.moved[item] = 0;
    run.done[item] = done;
  }
  if (!done) return;
  double total = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    total += static_cast<double>(run.distances[item * n + i]);
  }
  total = reduce_block<kThreads>(total, Sum());
  if (threadIdx.x == 0) run.inertia[item] = static_cast<float>(step.cosine ? 0.5 * total : total);
}

// Every point of item blockIdx.y to its nearest centroid.
__global__ void __launch_bounds__(kThreads) label_kernel(Points points, Run run, int k, Step step) {
  const int64_t item = blockIdx.y;
  if (run.done[item] != 0) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float* centroids = run.centroids + item * k * points.stride;
  int moved = 0;
  for_points(points.n, [&](int i) {
    IndexedValue nearest = 0;
    for (int c = 0; c < k; c += kGroup) {
      const float distance = group_distance(points.row(item, i), points.stride, k - c, [&](int j) {
        return centroids + static_cast<int64_t>(min(c + j, k - 1)) * points.stride;
      });
      const int centroid = c + lane / (kWarp / kGroup);
      if (centroid < k) nearest = max(nearest, indexed(-distance, centroid));
    }
    nearest = reduce_warp(nearest, Max());
    if (lane != 0) return;
    const int64_t at = item * points.n + i;
    const int32_t label = index_of(nearest);
    const int32_t before = step.first ? -1 : run.labels[at];
    run.before[at] = before;
    run.labels[at] = label;
    run.distances[at] = -float_of(nearest);
    atomicAdd(&run.counts[item * k + label], 1);
    moved += label != before;
  });
  if (moved > 0) atomicAdd(&run.moved[item], moved);
  if (!is_last_block(run.arrived + item, static_cast<int>(gridDim.x))) return;
  finish_labels(points, run, item, k, step);
}

// centroid = mean / |mean|, as it was where that is 0; by the first warp.
__device__ void take_direction(const float* mean, int d, float* centroid) {
  const float2 factors = inverse_norm(mean, d);
  if (factors.y == 0.0f) return;
  for (int p = static_cast<int>(threadIdx.x); p < d; p += kWarp) {
    centroid[p] = mean[p] * factors.x * factors.y;
  }
}

// One block: kSumColumns columns of the mean of one cluster of item blockIdx.y.
__global__ void __launch_bounds__(kSumThreads)
    update_kernel(Points points, Run run, int k, int column_blocks) {
  auto& shared = shared_memory<ClusterSumsShared>();
  const int64_t item = blockIdx.y;
  if (run.done[item] != 0) return;
  const int c = static_cast<int>(blockIdx.x) / column_blocks;
  const int first_column = static_cast<int>(blockIdx.x) % column_blocks * kSumColumns;
  const int count =
      add_members(points, run.labels + item * points.n, item, 0, points.n, c, first_column, shared);
  const int64_t cluster = item * k + c;
  if (first_column == 0 && threadIdx.x == 0) run.counts[cluster] = 0;  // the next kernel counts anew
  if (count == 0) return;
  float* centroid = run.centroids + cluster * points.stride;
  float* mean = run.means == nullptr ? centroid : run.means + cluster * points.stride;
  const int column = static_cast<int>(threadIdx.x);
  if (column < kSumColumns && first_column + column < points.stride) {
    mean[first_column + column] = static_cast<float>(column_sum(shared, column) * (1.0 / count));
  }
  if (run.means == nullptr || !is_last_block(run.cluster_arrived + cluster, column_blocks)) return;
  if (threadIdx.x < kWarp) take_direction(mean, points.d, centroid);
}

struct Results {
  int32_t* labels;   // [batch, n]
  float* centroids;  // [batch, k, d]
  float* inertia;    // [batch]
};

// Copies the run to the results where it is the first or the best.
__global__ void __launch_bounds__(kThreads)
    keep_kernel(Points points, Run run, int k, bool first, Results results) {
  const int64_t item = blockIdx.y;
  if (!first && !(run.inertia[item] < results.inertia[item])) return;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = begin; i < points.n; i += step) {
    results.labels[item * points.n + i] = run.labels[item * points.n + i];
  }
  const int64_t size = static_cast<int64_t>(k) * points.d;
  for (int64_t e = begin; e < size; e += step) {
    results.centroids[item * size + e] =
        run.centroids[(item * k + e / points.d) * points.stride + e % points.d];
  }
  if (!is_last_block(run.arrived + item, static_cast<int>(gridDim.x))) return;
  if (threadIdx.x == 0) results.inertia[item] = run.inertia[item];
}

// ---- what is queued

struct Job {
  const patchcut_kmeans_params& params;
  int k;
  int64_t batch;
  Points points;

  bool cosine() const { return params.metric == PATCHCUT_COSINE_DISTANCE; }
  dim3 point_blocks() const {
    return {static_cast<unsigned>(ceil_div(points.n, kPointsOfBlock)), static_cast<unsigned>(batch)};
  }
};

void queue_seeding(const Job& job, const Seeding& seeding, int64_t restart, const Run& run,
                   CudaQueue& queue) {
  for (int c = 0; c < job.k; ++c) {
    const Round round{c, c == 0 ? 1 : seeding.candidates, job.params.seed, static_cast<uint64_t>(restart)};
    launch(queue, seed_kernel, job.point_blocks(), kThreads, job.points, seeding, round, job.k,
           run.centroids);
  }
}

void queue_lloyd(const Job& job, const Run& run, CudaQueue& queue) {
  const int column_blocks = ceil_div(job.points.stride, kSumColumns);
  const dim3 updates(static_cast<unsigned>(job.k * column_blocks), static_cast<unsigned>(job.batch));
  queue.clear(run.counts, job.batch * job.k);
  queue.clear(run.done, job.batch);
  for (int64_t iteration = 0; iteration <= job.params.iterations; ++iteration) {
    if (iteration > 0)
      launch(queue, update_kernel, updates, kSumThreads, job.points, run, job.k, column_blocks);
    const Step step{iteration == 0, iteration == job.params.iterations, job.cosine()};
    launch(queue, label_kernel, job.point_blocks(), kThreads, job.points, run, job.k, step);
    if (queue.only_counts()) return;
  }
}

Seeding take_seeding(const Job& job, CudaQueue& queue) {
  const int candidates = 2 + static_cast<int>(std::log(static_cast<double>(job.k)));
  const int64_t each = job.batch * candidates;
  return {candidates,
          queue.take<int>(each),
          queue.take<float>(2 * each * job.points.n),
          queue.take<double>(each * job.point_blocks().x),
          queue.take<int>(job.batch),
          queue.take<int>(job.batch)};
}

Run take_run(const Job& job, CudaQueue& queue) {
  const int64_t nodes = job.batch * job.points.n;
  const int64_t clusters = job.batch * job.k;
  return {queue.take<float>(clusters * job.points.stride),
          job.cosine() ? queue.take<float>(clusters * job.points.stride) : nullptr,
          queue.take<int32_t>(nodes),
          queue.take<int32_t>(nodes),
          queue.take<float>(nodes),
          queue.take<float>(job.batch),
          queue.take<int>(clusters),
          queue.take<int>(job.batch),
          queue.take<int>(job.batch),
          queue.take<int>(clusters),
          queue.take<int>(job.batch)};
}

}  // namespace

void kmeans_cuda(const void* points, int32_t dtype, int64_t batch, int64_t n, int64_t d, int64_t k,
                 const patchcut_kmeans_params& params, const float* init, int32_t* labels, float* centroids,
                 float* inertia, CudaQueue& queue) {
  if (batch == 0) return;
  const bool cosine = params.metric == PATCHCUT_COSINE_DISTANCE;
  const UnitRows rows = unit_rows(points, dtype, batch * n, d, cosine, queue);
  const Job job{params,
                static_cast<int>(k),
                batch,
                {rows.data, static_cast<int>(n), static_cast<int>(d), static_cast<int>(rows.stride)}};
  const Run run = take_run(job, queue);
  queue.clear(run.moved, batch);
  queue.clear(run.arrived, batch);
  queue.clear(run.cluster_arrived, batch * job.k);
  Seeding seeding{};
  if (init == nullptr) {
    seeding = take_seeding(job, queue);
    queue.clear(seeding.arrived, batch);
  } else {
    queue_unit_rows(init, PATCHCUT_FLOAT32, batch * k, d, cosine, rows.stride, run.centroids, queue);
  }
  const dim3 copies(static_cast<unsigned>(ceil_div<int64_t>(n + k * d, 8 * kThreads)),
                    static_cast<unsigned>(batch));
  for (int64_t restart = 0; restart < params.restarts; ++restart) {
    if (init == nullptr) queue_seeding(job, seeding, restart, run, queue);
    queue_lloyd(job, run, queue);
    launch(queue, keep_kernel, copies, kThreads, job.points, run, job.k, restart == 0,
           Results{labels, centroids, inertia});
    if (queue.only_counts()) return;
  }
}

}  // namespace patchcut
