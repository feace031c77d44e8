// Sums of the points of one cluster.
#pragma once

#include "cuda/launch.cuh"

namespace patchcut {

struct Points {
  const float* rows;  // [batch, n, stride], zeros past column d
  int n;
  int d;
  int stride;  // a multiple of 4

  __device__ const float* row(int64_t item, int i) const { return rows + (item * n + i) * stride; }
};

constexpr int kSumThreads = 256;
constexpr int kSumColumns = 64;  // of one block
constexpr int kRowGroups = kSumThreads / (kSumColumns / 4);

struct ClusterSumsShared {
  double sums[kRowGroups][kSumColumns];
  int counts[kRowGroups];
};

// Leaves in `shared` the sums of kSumColumns columns over those of the points [begin, end) of an item that
// are labelled c, by groups of rows; returns how many these are. By a block of kSumThreads.
__device__ inline int add_members(const Points& points, const int32_t* labels, int64_t item, int begin,
                                  int end, int c, int first_column, ClusterSumsShared& shared) {
  const int group = static_cast<int>(threadIdx.x) / (kSumColumns / 4);
  const int column = static_cast<int>(threadIdx.x) % (kSumColumns / 4) * 4;
  double sums[4] = {};
  int count = 0;
  for (int i = begin + group; i < end; i += kRowGroups) {
    if (labels[i] != c) continue;
    ++count;
    if (first_column + column >= points.stride) continue;
    const auto x = as_pack<4>(points.row(item, i) + first_column + column);
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[j] += static_cast<double>(x.values[j]);
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) shared.sums[group][column + j] = sums[j];
  if (column == 0) shared.counts[group] = count;
  __syncthreads();
  count = 0;
  for (int g = 0; g < kRowGroups; ++g) count += shared.counts[g];
  return count;
}

// Of the calling thread's column, below kSumColumns; always in the same order.
__device__ inline double column_sum(const ClusterSumsShared& shared, int column) {
  double sum = 0.0;
  for (int g = 0; g < kRowGroups; ++g) sum += shared.sums[g][column];
  return sum;
}

}  // namespace patchcut
