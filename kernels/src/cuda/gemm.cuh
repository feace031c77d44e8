// Matrix products of one tile by one block: slices of both factors go through shared memory, two at a time,
// so that the next one is on its way from device memory while this one is used; each thread keeps its part of
// the tile in registers. Any sizes: what lies outside is 0.
#pragma once

#include "cuda/launch.cuh"

namespace patchcut {

// Four neighbours as float: in one access where `aligned`, which the caller knows; 0 from `count` on.
template <class T>
__device__ __forceinline__ float4 load_four(const T* values, int count, bool aligned) {
  if (aligned && count >= 4) {
    const Pack<T, 4> pack = as_pack<4>(values);
    return make_float4(to_float(pack.values[0]), to_float(pack.values[1]), to_float(pack.values[2]),
                       to_float(pack.values[3]));
  }
  return make_float4(count > 0 ? to_float(values[0]) : 0.0f, count > 1 ? to_float(values[1]) : 0.0f,
                     count > 2 ? to_float(values[2]) : 0.0f, count > 3 ? to_float(values[3]) : 0.0f);
}

// Whether every row of a matrix starts where four neighbours can be read at once.
template <class T>
bool rows_are_aligned(const T* data, int64_t stride) {
  return stride % 4 == 0 && reinterpret_cast<uintptr_t>(data) % (4 * sizeof(T)) == 0;
}

// A factor whose rows run along the summed dimension: a of a @ b, or b of a @ b^T.
template <class T>
struct RowMajor {
  static constexpr bool kAlongDepth = true;
  const T* data;  // [rows, stride], of which depth columns
  int rows;
  int depth;
  int64_t stride;
  bool aligned;

  __device__ __forceinline__ float4 load(int row, int p) const {
    return load_four(data + row * stride + p, row < rows ? depth - p : 0, aligned);
  }
};

// A factor whose rows lie along the tile: b of a @ b, or a of a^T @ b.
template <class T>
struct DepthMajor {
  static constexpr bool kAlongDepth = false;
  const T* data;  // [depth, stride], of which `rows` columns
  int rows;
  int depth;
  int64_t stride;
  bool aligned;

  __device__ __forceinline__ float4 load(int row, int p) const {
    return load_four(data + p * stride + row, p < depth ? rows - row : 0, aligned);
  }
};

template <class T>
RowMajor<T> row_major(const T* data, int64_t rows, int64_t depth, int64_t stride) {
  return {data, static_cast<int>(rows), static_cast<int>(depth), stride, rows_are_aligned(data, stride)};
}

template <class T>
DepthMajor<T> depth_major(const T* data, int64_t depth, int64_t rows, int64_t stride) {
  return {data, static_cast<int>(rows), static_cast<int>(depth), stride, rows_are_aligned(data, stride)};
}

// Blocks of 16 x 16 threads, each of which has `thread_rows` x `thread_cols` entries of the tile.
template <int thread_rows, int thread_cols>
struct GemmTile {
  static constexpr int kSide = 16;
  static constexpr int kThreads = kSide * kSide;
  static constexpr int kThreadRows = thread_rows;
  static constexpr int kThreadCols = thread_cols;
  static constexpr int kRows = kSide * thread_rows;
  static constexpr int kCols = kSide * thread_cols;
  static constexpr int kDepth = 16;
  static constexpr int kPadding = 4;  // keeps packs of four aligned and spreads a column over the banks

  struct Shared {
    alignas(16) float a[2][kDepth][kRows + kPadding];
    alignas(16) float b[2][kDepth][kCols + kPadding];
  };

  // First row and column of the calling thread's part.
  static __device__ __forceinline__ int thread_row() {
    return static_cast<int>(threadIdx.x) / kSide * thread_rows;
  }
  static __device__ __forceinline__ int thread_col() {
    return static_cast<int>(threadIdx.x) % kSide * thread_cols;
  }
};

// One slice of a factor on its way to shared memory: `size` rows of it, `depth` deep.
template <int size, int depth, int threads>
struct StagedSlice {
  static constexpr int kPacks = size * depth / 4;
  static constexpr int kOfThread = (kPacks + threads - 1) / threads;
  float4 packs[kOfThread];

  // Neighbouring threads read neighbouring packs.
  template <class Factor>
  static __device__ __forceinline__ void locate(int pack, int* row, int* p) {
    if (Factor::kAlongDepth) {
      *row = pack / (depth / 4);
      *p = pack % (depth / 4) * 4;
    } else {
      *row = pack % (size / 4) * 4;
      *p = pack / (size / 4);
    }
  }

  template <class Factor>
  __device__ __forceinline__ void load(const Factor& factor, int first_row, int first_p) {
#pragma unroll
    for (int i = 0; i < kOfThread; ++i) {
      const int pack = static_cast<int>(threadIdx.x) + i * threads;
      int row, p;
      locate<Factor>(pack, &row, &p);
      const bool mine = kPacks % threads == 0 || pack < kPacks;
      packs[i] = mine ? factor.load(first_row + row, first_p + p) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }

  template <class Factor, int stride>
  __device__ __forceinline__ void store(float (&slice)[depth][stride]) const {
#pragma unroll
    for (int i = 0; i < kOfThread; ++i) {
      const int pack = static_cast<int>(threadIdx.x) + i * threads;
      int row, p;
      locate<Factor>(pack, &row, &p);
      if (kPacks % threads != 0 && pack >= kPacks) continue;
      if (Factor::kAlongDepth) {
        slice[p][row] = packs[i].x;
        slice[p + 1][row] = packs[i].y;
        slice[p + 2][row] = packs[i].z;
        slice[p + 3][row] = packs[i].w;
      } else {
        as_pack<4>(&slice[p][row]) = {packs[i].x, packs[i].y, packs[i].z, packs[i].w};
      }
    }
  }
};

template <class Tile>
__device__ __forceinline__ void multiply_slice(const typename Tile::Shared& shared, int slice,
                                               float (&total)[Tile::kThreadRows][Tile::kThreadCols]) {
#pragma unroll
  for (int p = 0; p < Tile::kDepth; ++p) {
    const auto a = as_pack<Tile::kThreadRows>(&shared.a[slice][p][Tile::thread_row()]);
    const auto b = as_pack<Tile::kThreadCols>(&shared.b[slice][p][Tile::thread_col()]);
#pragma unroll
    for (int i = 0; i < Tile::kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kThreadCols; ++j) total[i][j] += a.values[i] * b.values[j];
    }
  }
}

// total = a @ b for the calling thread's part of the tile at (first_row, first_col): entry [i][j] is row
// first_row + Tile::thread_row() + i and column first_col + Tile::thread_col() + j. Called by all threads of
// the block; sums run in the same order for every entry.
template <class Tile, class A, class B>
__device__ __forceinline__ void multiply_tile(const A& a, const B& b, int first_row, int first_col,
                                              float (&total)[Tile::kThreadRows][Tile::kThreadCols]) {
  auto& shared = shared_memory<typename Tile::Shared>();
  StagedSlice<Tile::kRows, Tile::kDepth, Tile::kThreads> next_a;
  StagedSlice<Tile::kCols, Tile::kDepth, Tile::kThreads> next_b;
#pragma unroll
  for (int i = 0; i < Tile::kThreadRows; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kThreadCols; ++j) total[i][j] = 0.0f;
  }
  next_a.load(a, first_row, 0);
  next_b.load(b, first_col, 0);
  for (int p = 0, slice = 0; p < a.depth; p += Tile::kDepth, slice ^= 1) {
    next_a.template store<A>(shared.a[slice]);
    next_b.template store<B>(shared.b[slice]);
    // Nobody may still read the slice before the last one, which lies where the next one goes: all have
    // passed the barrier of the last round, after they were done with it.
    __syncthreads();
    if (p + Tile::kDepth < a.depth) {
      next_a.load(a, first_row, p + Tile::kDepth);
      next_b.load(b, first_col, p + Tile::kDepth);
    }
    multiply_slice<Tile>(shared, slice, total);
  }
  __syncthreads();  // the memory may be used for other things now
}

}  // namespace patchcut
