#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "clusters/kmeans_sums.h"
#include "clusters/score_error.h"
#include "clusters/simd.h"
#include "cpu/errors.h"
#include "cpu/feature_rows.h"
#include "cpu/gemm.h"
#include "cpu/interrupt.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace patchcut {
namespace {

constexpr const char* kOp = "kmeans_sums";
// Points that are labelled and added up at once: as floats they share the L2 cache with centroids and sums.
constexpr int64_t kBlock = 64;
// Each part of the points has sums of its own, added up in their order: a number that threads do not change.
constexpr int64_t kMostParts = 64;
constexpr int64_t kLeastPart = 1024;  // points, a multiple of kBlock
// Sums of parts that are larger than this go to the cache and back for every point: they are made by fewer
// parts, after all labels, which take much longer then.
constexpr int64_t kCachedSums = int64_t{1} << 17;  // doubles
constexpr int64_t kMostSums = int64_t{1} << 23;    // doubles of all parts
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Job {
  const SimdTable& simd;
  const ClusterTable& loops;
  const void* points;  // [n, d] of dtype
  int32_t dtype;
  bool cosine;
  int64_t n;
  int64_t d;
  int64_t k;
  int64_t padded;          // k, to whole vectors
  const float* centroids;  // [k, d], unit rows where the metric is cosine
  const float* packed;     // the same, transposed, in panels
  ScoreBounds bounds;
  float longest;  // centroid; infinite where products may overflow
  int32_t* labels;
  float* distances;
};

// Who found what, of threads that go on without each other.
struct Faults {
  std::atomic<bool> finite{true};
  std::atomic<bool> fits{true};
};

// `rows` points from `first` on as floats, of length 1 where the metric is cosine: in `room` [rows, d] where
// they are not that already.
const float* read_block(const Job& job, int64_t first, int64_t rows, float* room) {
  const int64_t at = first * job.d;
  const float* source = room;
  if (job.dtype == PATCHCUT_FLOAT16) {
    job.simd.half_to_float(rows * job.d, static_cast<const uint16_t*>(job.points) + at, room);
  } else {
    source = static_cast<const float*>(job.points) + at;
  }
  if (!job.cosine) return source;
  for (int64_t i = 0; i < rows * job.d; i += job.d) normalize_row(job.simd, job.d, source + i, room + i);
  return room;
}

// The length of a row as near_largest takes it: rounded up by what squares that underflow leave out, and
// infinite, so that it excludes nothing, where products may overflow.
float length_of(const Job& job, const float* row, Faults* faults) {
  const float squares = job.simd.sum_squares(job.d, row);
  if (!std::isfinite(squares) && !job.simd.all_finite(job.d, row)) faults->finite = false;
  const float length = std::sqrt(squares + lost_squares(job.d));
  return length * job.longest < kLargestScore ? length : kInfinity;
}

// x.c - |c|^2 / 2 of all centroids is largest at the nearest. Rounding may move it, mostly by too little to
// let another be it; of those that might be, the difference itself tells.
void label_row(const Job& job, const float* row, const float* products, int64_t i, int32_t* candidates,
               Faults* faults) {
  const float length = length_of(job, row, faults);
  const int64_t count = job.loops.near_largest(job.k, products, job.bounds, length, candidates);
  double least = std::numeric_limits<double>::infinity();
  job.labels[i] = 0;
  for (int64_t t = 0; t < count; ++t) {
    const int32_t c = candidates[t];
    const double distance = job.loops.squared_distance(job.d, row, job.centroids + c * job.d);
    if (distance >= least) continue;
    least = distance;
    job.labels[i] = c;
  }
  job.distances[i] = static_cast<float>(job.cosine ? 0.5 * least : least);
  if (!std::isfinite(job.distances[i])) faults->fits = false;
}

void label_block(const Job& job, int64_t first, int64_t rows, const float* x, Faults* faults) {
  Scratch scratch;
  float* products = scratch.take<float>(rows * job.padded);
  int32_t* candidates = scratch.take<int32_t>(job.k);
  gemm_rows(job.simd, rows, job.padded, job.d, x, job.d, job.packed, products, job.padded);
  for (int64_t i = 0; i < rows; ++i) {
    label_row(job, x + i * job.d, products + i * job.padded, first + i, candidates, faults);
  }
}

void add_block(const Job& job, int64_t first, int64_t rows, const float* x, double* sums) {
  for (int64_t i = 0; i < rows; ++i) {
    job.loops.move_row(job.d, x + i * job.d, nullptr, sums + job.labels[first + i] * job.d);
  }
}

// Calls body(first, rows, points as floats) for the blocks of points [begin, end).
template <class Body>
void for_blocks(const Job& job, int64_t begin, int64_t end, int64_t cycles_per_row, const Body& body) {
  Scratch scratch;
  float* room = scratch.take<float>(kBlock * job.d);
  InterruptPoll poll;
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t rows = std::min(kBlock, end - first);
    body(first, rows, read_block(job, first, rows, room));
    poll.spend(rows * cycles_per_row);
  }
}

// ---- the centroids

// Packs job.centroids, which are the centroids or, where `unit` is not null, lie there once they are
// normalised, and takes the squares of their lengths.
void prepare_centroids(const Job& job, const float* centroids, float* unit, float* packed, double* squares) {
  const int64_t panel = job.simd.panel;
  std::atomic<bool> finite{true};
  parallel_for((job.k + panel - 1) / panel, panel * job.d * 4, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * panel; first < std::min(job.k, end * panel); first += panel) {
      const int64_t count = std::min(panel, job.k - first);
      for (int64_t i = first * job.d; i < (first + count) * job.d; i += job.d) {
        if (!job.simd.all_finite(job.d, centroids + i)) finite.store(false, std::memory_order_relaxed);
        if (unit != nullptr) normalize_row(job.simd, job.d, centroids + i, unit + i);
        const float* row = job.centroids + i;
        double sum = 0.0;
        for (int64_t j = 0; j < job.d; ++j) sum += static_cast<double>(row[j]) * row[j];
        squares[i / job.d] = sum;
      }
      pack_rows(job.simd, job.d, count, job.centroids + first * job.d, packed + first * job.d);
    }
  });
  require_finite(finite, kOp, "centroids");
}

// Returns the length of the longest centroid, infinite where products may overflow.
float bound_scores(const Job& job, const double* squares, float* low, float* high, float* slope) {
  const ScoreError error(job.d);
  for (int64_t c = 0; c < job.k; ++c) {
    const double own = error.share * squares[c] / 2 + error.least;
    low[c] = static_cast<float>(squares[c] / 2 + own);
    high[c] = static_cast<float>(squares[c] / 2 - own);
    slope[c] = static_cast<float>(error.share * std::sqrt(squares[c]));
  }
  std::fill(low + job.k, low + job.padded, kInfinity);
  std::fill(high + job.k, high + job.padded, kInfinity);
  std::fill(slope + job.k, slope + job.padded, 0.0f);
  const double largest = *std::max_element(squares, squares + job.k);
  return largest < kLargestScore ? static_cast<float>(std::sqrt(largest)) : kInfinity;
}

// ---- sums

int64_t parts_of(int64_t n, int64_t sums) {
  const int64_t most = std::clamp<int64_t>(kMostSums / sums, 1, kMostParts);
  return std::clamp<int64_t>(n / kLeastPart, 1, most);
}

void add_up(const Job& job, int64_t parts, const double* of_parts, double* sums) {
  const int64_t size = job.k * job.d;
  parallel_for(size, parts, [&](int64_t begin, int64_t end) {
    for (int64_t p = 0; p < parts; ++p) {
      const double* part = of_parts + p * size;
      for (int64_t i = begin; i < end; ++i) sums[i] += part[i];
    }
  });
}

void label_all(const Job& job, int64_t cycles, Faults* faults) {
  const int64_t blocks = (job.n + kBlock - 1) / kBlock;
  parallel_for(blocks, kBlock * cycles, [&](int64_t begin, int64_t end) {
    for_blocks(
        job, begin * kBlock, std::min(job.n, end * kBlock), cycles,
        [&](int64_t first, int64_t rows, const float* x) { label_block(job, first, rows, x, faults); });
  });
}

void label_and_add(const Job& job, int64_t cycles, double* sums, Faults* faults) {
  const int64_t size = job.k * job.d;
  const bool at_once = size <= kCachedSums;
  if (!at_once) label_all(job, cycles, faults);
  const int64_t parts = parts_of(job.n, size);
  const int64_t rows_of_part = (job.n / parts / kBlock + 1) * kBlock;
  Scratch scratch;
  double* of_parts = scratch.take<double>(parts * size);
  parallel_for(parts, rows_of_part * (at_once ? cycles : job.d), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      double* part = of_parts + p * size;
      std::fill_n(part, size, 0.0);
      for_blocks(job, std::min(job.n, p * rows_of_part), std::min(job.n, (p + 1) * rows_of_part), cycles,
                 [&](int64_t first, int64_t rows, const float* x) {
                   if (at_once) label_block(job, first, rows, x, faults);
                   add_block(job, first, rows, x, part);
                 });
    }
  });
  std::fill_n(sums, size, 0.0);
  add_up(job, parts, of_parts, sums);
}

// ---- results

void count_points(const Job& job, int64_t* counts, double* inertia) {
  std::fill_n(counts, job.k, 0);
  double total = 0.0;
  InterruptPoll poll;
  for (int64_t first = 0; first < job.n; first += kBlock) {
    const int64_t end = std::min(job.n, first + kBlock);
    for (int64_t i = first; i < end; ++i) {
      ++counts[job.labels[i]];
      total += job.distances[i];
    }
    poll.spend(4 * kBlock);
  }
  *inertia = total;
}

}  // namespace

void kmeans_sums_cpu(const void* points, int32_t dtype, int64_t n, int64_t d, const float* centroids,
                     int64_t k, const patchcut_kmeans_sums_params& params, int32_t* labels, float* distances,
                     double* sums, int64_t* counts, double* inertia) {
  const SimdTable& table = simd();
  const bool cosine = params.metric == PATCHCUT_COSINE_DISTANCE;
  const int64_t padded = (k + table.lanes - 1) / table.lanes * table.lanes;
  Scratch scratch;
  float* unit = cosine ? scratch.take<float>(k * d) : nullptr;
  float* packed = scratch.take<float>(packed_size(table, d, k));
  double* squares = scratch.take<double>(k);
  float* low = scratch.take<float>(padded);
  float* high = scratch.take<float>(padded);
  float* slope = scratch.take<float>(padded);
  Job job{
      table,  table.get<ClusterTable>(), points, dtype,  cosine,   n, d, k, padded, cosine ? unit : centroids,
      packed, {low, high, slope},        0.0f,   labels, distances};
  prepare_centroids(job, centroids, unit, packed, squares);
  job.longest = bound_scores(job, squares, low, high, slope);
  const int64_t cycles = d * (1 + padded / 16);
  Faults faults;
  if (sums == nullptr) {
    label_all(job, cycles, &faults);
  } else {
    label_and_add(job, cycles, sums, &faults);
  }
  require_finite(faults.finite, kOp, "points");
  require(faults.fits, kOp, "points overflow: squared distances must fit float32, got infinity");
  count_points(job, counts, inertia);
}

}  // namespace patchcut
