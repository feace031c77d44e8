// Pixels find their vertex in a hash table of keys; vertices are numbered in the order of their first pixels.
// Their number is known on the device alone: kernels over vertices have blocks for as many as there can be
// pixels, at most kBlocks, and those that are not needed return at once. What a step of conjugate gradients
// needs of all blocks, the last block adds up. Sums of pixels are of integers (fixed_sum.cuh), all others are
// added in one order: results do not depend on the order in which threads run.
#include <algorithm>
#include <climits>
#include <utility>

#include "cuda/block_scan.cuh"
#include "cuda/fixed_sum.cuh"
#include "cuda/last_block.cuh"
#include "cuda/launch.cuh"
#include "refine/bilateral_bins.h"
#include "refine/bilateral_solver.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kScanThreads = 1024;
constexpr int kBlocks = 256;  // of kernels over vertices, at most
constexpr int kAxes = 5;      // luma, U, V, x, y
constexpr int kNone = -1;

using Key = unsigned long long;
constexpr Key kEmpty = ~Key{0};

// Keys of the neighbours of a vertex are a step away on each axis. Behind each axis there is a bin that stays
// empty, so that the neighbour of a last bin is no bin of the next row.
struct Bins {
  float per_pixel;  // 1 / sigma, as the others
  float per_luma;
  float per_chroma;
  Key steps[kAxes];
  bool swap_channels;
};

Bins make_bins(int64_t width, const patchcut_bilateral_solver_params& params) {
  Bins bins{1.0f / params.sigma_spatial,
            1.0f / params.sigma_luma,
            1.0f / params.sigma_chroma,
            {},
            params.color == PATCHCUT_BGR};
  const auto size = [](int64_t values, float per_bin) {
    return static_cast<Key>(bin_of(values - 1, per_bin) + 2);
  };
  bins.steps[0] = 1;
  bins.steps[1] = size(256, bins.per_luma);
  bins.steps[2] = bins.steps[1] * size(256, bins.per_chroma);
  bins.steps[3] = bins.steps[2] * size(256, bins.per_chroma);
  bins.steps[4] = bins.steps[3] * size(width, bins.per_pixel);
  return bins;
}

struct Frame {
  const uint8_t* pixels;  // [height, width, 3]
  int64_t count;
  int width;
};

// Weights are BT.601's in 65536ths: those of luma sum to 1 and those of chroma to 0, so that grey is grey.
__device__ Key key_of_pixel(const Frame& frame, const Bins& bins, int64_t at) {
  const uint8_t* pixel = frame.pixels + 3 * at;
  const int red = pixel[bins.swap_channels ? 2 : 0];
  const int green = pixel[1];
  const int blue = pixel[bins.swap_channels ? 0 : 2];
  const int64_t y = at / frame.width;
  const int levels[3] = {(19595 * red + 38470 * green + 7471 * blue) >> 16,
                         ((-11059 * red - 21709 * green + 32768 * blue) >> 16) + 128,
                         ((32768 * red - 27439 * green - 5329 * blue) >> 16) + 128};
  return static_cast<Key>(bin_of(levels[0], bins.per_luma)) * bins.steps[0] +
         static_cast<Key>(bin_of(levels[1], bins.per_chroma)) * bins.steps[1] +
         static_cast<Key>(bin_of(levels[2], bins.per_chroma)) * bins.steps[2] +
         static_cast<Key>(bin_of(at - y * frame.width, bins.per_pixel)) * bins.steps[3] +
         static_cast<Key>(bin_of(y, bins.per_pixel)) * bins.steps[4];
}

// Open addressing; at least half of the entries stay empty.
struct Table {
  Key* keys;      // [capacity]
  int* firsts;    // [capacity], first pixels of the keys
  int* vertices;  // [capacity], of the keys
  int bits;       // of the capacity

  __host__ __device__ __forceinline__ int64_t capacity() const { return int64_t{1} << bits; }
  __device__ __forceinline__ int64_t next(int64_t entry) const { return (entry + 1) & (capacity() - 1); }
  __device__ __forceinline__ int64_t first(Key key) const {
    return static_cast<int64_t>((key * 0x9E3779B97F4A7C15ull) >> (64 - bits));
  }
};

Table make_table(int64_t pixels, CudaQueue& queue) {
  Table table{nullptr, nullptr, nullptr, 5};
  while (table.capacity() < 2 * pixels) ++table.bits;
  table.keys = queue.take<Key>(table.capacity());
  table.firsts = queue.take<int>(table.capacity());
  table.vertices = queue.take<int>(table.capacity());
  return table;
}

__global__ void __launch_bounds__(kThreads) clear_table_kernel(Table table) {
  const int64_t entry = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (entry >= table.capacity()) return;
  table.keys[entry] = kEmpty;
  table.firsts[entry] = INT_MAX;
}

__device__ int64_t find_or_add(const Table& table, Key key) {
  for (int64_t entry = table.first(key);; entry = table.next(entry)) {
    Key held = table.keys[entry];
    if (held == kEmpty) held = atomicCAS(&table.keys[entry], kEmpty, key);
    if (held == kEmpty || held == key) return entry;
  }
}

// The vertex of a key, or kNone.
__device__ int find_vertex(const Table& table, Key key) {
  for (int64_t entry = table.first(key);; entry = table.next(entry)) {
    const Key held = table.keys[entry];
    if (held == key) return table.vertices[entry];
    if (held == kEmpty) return kNone;
  }
}

// The table's entry of each pixel.
__global__ void __launch_bounds__(kThreads) find_kernel(Frame frame, Bins bins, Table table, int* entries) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= frame.count) return;
  const int64_t entry = find_or_add(table, key_of_pixel(frame, bins, at));
  entries[at] = static_cast<int>(entry);
  if (at < table.firsts[entry]) atomicMin(&table.firsts[entry], static_cast<int>(at));
}

__device__ __forceinline__ bool is_first(const Table& table, const int* entries, int64_t at, int64_t pixels) {
  return at < pixels && table.firsts[entries[at]] == at;
}

__global__ void __launch_bounds__(kThreads)
    count_kernel(Table table, const int* entries, int64_t pixels, int* counts) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int count = __syncthreads_count(is_first(table, entries, at, pixels));
  if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

// One block: counts of blocks become how many come before; the total goes after them.
__global__ void __launch_bounds__(kScanThreads) scan_kernel(int* counts, int blocks) {
  int before_chunk = 0;
  for (int first = 0; first < blocks; first += kScanThreads) {
    const int at = first + static_cast<int>(threadIdx.x);
    int total = 0;
    const int before = sum_before<kScanThreads>(at < blocks ? counts[at] : 0, &total);
    if (at < blocks) counts[at] = before_chunk + before;
    before_chunk += total;
  }
  if (threadIdx.x == 0) counts[blocks] = before_chunk;
}

// Over the vertices, of which there is room for as many as there are pixels; each kernel reads `count`.
struct Solver {
  const int* count;
  int64_t room;
  Key* keys;          // [room]
  int* neighbours;    // [2 * kAxes, room], or kNone
  int* mass;          // pixels
  float* weight;      // sum of their confidence
  float* right;       // sum of their confidence times their value
  float* scale;       // the paper's D_n
  float* next_scale;  // of the next iteration; then scale * sqrt(smoothness)
  float* inverse;     // 1 / the operator's diagonal
  float* x;
  float* r;
  float* p;
  float* q;
};

__global__ void __launch_bounds__(kThreads)
    number_kernel(Table table, const int* entries, int64_t pixels, const int* counts, Solver solver) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const bool first = is_first(table, entries, at, pixels);
  int total = 0;
  const int vertex = counts[blockIdx.x] + sum_before<kThreads>(first ? 1 : 0, &total);
  if (!first) return;
  table.vertices[entries[at]] = vertex;
  solver.keys[vertex] = table.keys[entries[at]];
}

// Calls visit(vertex) for the vertices of the calling thread.
template <class Visit>
__device__ __forceinline__ void for_vertices(const Solver& solver, const Visit& visit) {
  const int step = static_cast<int>(gridDim.x) * kThreads;
  for (int v = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); v < *solver.count;
       v += step) {
    visit(v);
  }
}

// Calls visit(vertex) for the neighbours of a vertex.
template <class Visit>
__device__ __forceinline__ void for_neighbours(const Solver& solver, int vertex, const Visit& visit) {
#pragma unroll
  for (int i = 0; i < 2 * kAxes; ++i) {
    const int near = solver.neighbours[i * solver.room + vertex];
    if (near != kNone) visit(near);
  }
}

__device__ __forceinline__ float sum_neighbours(const Solver& solver, int vertex, const float* values) {
  float total = 0.0f;
  for_neighbours(solver, vertex, [&](int near) { total += values[near]; });
  return total;
}

// s_i * (sum over neighbours j of s_j (x_i - x_j)) + weight_i x_i, with s = next_scale.
__device__ __forceinline__ float apply(const Solver& solver, int vertex, const float* x) {
  const float own = x[vertex];
  float total = 0.0f;
  for_neighbours(solver, vertex, [&](int near) { total += solver.next_scale[near] * (own - x[near]); });
  return solver.next_scale[vertex] * total + solver.weight[vertex] * own;
}

// What pixels add to their vertex, beside Solver::mass.
struct Sums {
  unsigned* weight_peak;  // [room], magnitude_of the largest term
  unsigned* right_peak;   // [room]
  FixedSum* weight;       // [room]
  FixedSum* right;        // [room]
};

// Finds the neighbours, and clears the sums.
__global__ void __launch_bounds__(kThreads) join_kernel(Table table, Bins bins, Solver solver, Sums sums) {
  for_vertices(solver, [&](int v) {
    for (int axis = 0; axis < kAxes; ++axis) {
      const Key step = bins.steps[axis];
      int* before = solver.neighbours + 2 * axis * solver.room;
      before[v] = solver.keys[v] < step ? kNone : find_vertex(table, solver.keys[v] - step);
      before[solver.room + v] = find_vertex(table, solver.keys[v] + step);
    }
    solver.mass[v] = 0;
    sums.weight_peak[v] = 0;
    sums.right_peak[v] = 0;
    sums.weight[v] = 0;
    sums.right[v] = 0;
  });
}

struct Values {
  const float* soft_map;    // [pixels]
  const float* confidence;  // [pixels]
  int64_t pixels;

  __device__ __forceinline__ float weighted(int64_t at) const { return confidence[at] * soft_map[at]; }
};

__device__ __forceinline__ void raise(unsigned* peak, float term) {
  const unsigned magnitude = magnitude_of(term);
  if (magnitude > *peak) atomicMax(peak, magnitude);
}

// The largest terms; the entries of pixels become their vertices.
__global__ void __launch_bounds__(kThreads)
    measure_kernel(Table table, Values values, int* entries, Solver solver, Sums sums) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= values.pixels) return;
  const int vertex = table.vertices[entries[at]];
  entries[at] = vertex;
  atomicAdd(&solver.mass[vertex], 1);
  raise(&sums.weight_peak[vertex], values.confidence[at]);
  raise(&sums.right_peak[vertex], values.weighted(at));
}

__global__ void __launch_bounds__(kThreads)
    splat_kernel(Values values, const int* vertices, Solver solver, Sums sums) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= values.pixels) return;
  const int v = vertices[at];
  const FixedUnit weight_unit(sums.weight_peak[v], solver.mass[v]);
  const FixedUnit right_unit(sums.right_peak[v], solver.mass[v]);
  atomicAdd(&sums.weight[v], weight_unit.count(values.confidence[at]));
  atomicAdd(&sums.right[v], right_unit.count(values.weighted(at)));
}

__global__ void __launch_bounds__(kThreads) start_kernel(Solver solver, Sums sums) {
  for_vertices(solver, [&](int v) {
    const int64_t terms = solver.mass[v];
    solver.weight[v] = static_cast<float>(FixedUnit(sums.weight_peak[v], terms).value(sums.weight[v]));
    solver.right[v] = static_cast<float>(FixedUnit(sums.right_peak[v], terms).value(sums.right[v]));
    solver.scale[v] = 1.0f;
    solver.p[v] = 0.0f;
  });
}

__global__ void __launch_bounds__(kThreads)
    balance_kernel(Solver solver, const float* scale, float* next_scale) {
  for_vertices(solver, [&](int v) {
    const float blurred = 10.0f * scale[v] + sum_neighbours(solver, v, scale);
    next_scale[v] = sqrtf(scale[v] * static_cast<float>(solver.mass[v]) / blurred);
  });
}

__global__ void __launch_bounds__(kThreads) set_up_kernel(Solver solver, float smoothness) {
  for_vertices(solver, [&](int v) {
    const float scale = solver.scale[v];
    const float weight = solver.weight[v];
    const float diagonal = smoothness * scale * sum_neighbours(solver, v, solver.scale) + weight;
    solver.next_scale[v] = scale * sqrtf(smoothness);
    solver.inverse[v] = diagonal > 0.0f ? 1.0f / diagonal : 0.0f;
    solver.x[v] = weight > 0.0f ? solver.right[v] / weight : 0.0f;
  });
}

// Where conjugate gradients stand.
struct State {
  double first;    // r . inverse r at the start
  double squared;  // the same now
  float alpha;
  float beta;
  bool done;
};

struct Gradients {
  State* state;
  float* block_sums;  // [kBlocks]
  int* arrived;
};

// Blocks that have a vertex.
__device__ __forceinline__ int used_blocks(const Solver& solver) {
  return min(static_cast<int>(gridDim.x), ceil_div(*solver.count, kThreads));
}

// Whether the calling block is the last; it then has the sum of the values of all threads of used blocks, in
// one order.
__device__ bool is_last_with_sum(const Solver& solver, const Gradients& gradients, float value, double* sum) {
  const int blocks = used_blocks(solver);
  const float of_block = reduce_block<kThreads>(value, Sum());
  if (threadIdx.x == 0) gradients.block_sums[blockIdx.x] = of_block;
  if (!is_last_block(gradients.arrived, blocks)) return false;
  double total = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < blocks; i += kThreads) {
    total += static_cast<double>(gradients.block_sums[i]);
  }
  *sum = reduce_block<kThreads>(total, Sum());
  return true;
}

// Whether a step still changes something in float32, see the CPU's solver.
__device__ bool goes_on(double squared, double first) { return squared > fmax(first * 1e-20, 1e-30); }

__global__ void __launch_bounds__(kThreads) residual_kernel(Solver solver, Gradients gradients) {
  if (static_cast<int>(blockIdx.x) >= used_blocks(solver)) return;
  float part = 0.0f;
  for_vertices(solver, [&](int v) {
    const float r = solver.right[v] - apply(solver, v, solver.x);
    solver.r[v] = r;
    part += r * r * solver.inverse[v];
  });
  double squared = 0.0;
  if (!is_last_with_sum(solver, gradients, part, &squared) || threadIdx.x != 0) return;
  *gradients.state = {squared, squared, 0.0f, 0.0f, !goes_on(squared, squared)};
}

__global__ void __launch_bounds__(kThreads) turn_kernel(Solver solver, const State* state) {
  if (state->done) return;
  const float beta = state->beta;
  for_vertices(solver, [&](int v) { solver.p[v] = solver.inverse[v] * solver.r[v] + beta * solver.p[v]; });
}

__global__ void __launch_bounds__(kThreads) apply_kernel(Solver solver, Gradients gradients) {
  State* state = gradients.state;
  if (state->done || static_cast<int>(blockIdx.x) >= used_blocks(solver)) return;
  float part = 0.0f;
  for_vertices(solver, [&](int v) {
    const float q = apply(solver, v, solver.p);
    solver.q[v] = q;
    part += solver.p[v] * q;
  });
  double curvature = 0.0;
  if (!is_last_with_sum(solver, gradients, part, &curvature) || threadIdx.x != 0) return;
  state->done = !(curvature > 0.0);
  state->alpha = static_cast<float>(state->squared / curvature);
}

__global__ void __launch_bounds__(kThreads) step_kernel(Solver solver, Gradients gradients) {
  State* state = gradients.state;
  if (state->done || static_cast<int>(blockIdx.x) >= used_blocks(solver)) return;
  const float alpha = state->alpha;
  float part = 0.0f;
  for_vertices(solver, [&](int v) {
    solver.x[v] += alpha * solver.p[v];
    const float r = solver.r[v] - alpha * solver.q[v];
    solver.r[v] = r;
    part += r * r * solver.inverse[v];
  });
  double squared = 0.0;
  if (!is_last_with_sum(solver, gradients, part, &squared) || threadIdx.x != 0) return;
  state->beta = static_cast<float>(squared / state->squared);
  state->squared = squared;
  state->done = !goes_on(squared, state->first);
}

__global__ void __launch_bounds__(kThreads)
    slice_kernel(const int* vertices, const float* x, int64_t pixels, float* out) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at < pixels) out[at] = x[vertices[at]];
}

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>(ceil_div<int64_t>(threads, kThreads)); }

struct Job {
  Frame frame;
  Bins bins;
  Table table;
  int* entries;  // [pixels], of the table; then vertices
  int* counts;   // [blocks of pixels + 1]
  Solver solver;
  Sums sums;
  Gradients gradients;

  unsigned pixel_blocks() const { return blocks_for(frame.count); }
  unsigned vertex_blocks() const { return std::min<unsigned>(pixel_blocks(), kBlocks); }
};

Solver take_solver(int64_t room, const int* count, CudaQueue& queue) {
  Solver s{};
  s.count = count;
  s.room = room;
  s.keys = queue.take<Key>(room);
  s.neighbours = queue.take<int>(2 * kAxes * room);
  s.mass = queue.take<int>(room);
  for (float** vector : {&s.weight, &s.right, &s.scale, &s.next_scale, &s.inverse, &s.x, &s.r, &s.p, &s.q}) {
    *vector = queue.take<float>(room);
  }
  return s;
}

Job make_job(int64_t height, int64_t width, const patchcut_bilateral_solver_params& params,
             CudaQueue& queue) {
  const int64_t pixels = height * width;
  const unsigned blocks = blocks_for(pixels);
  Job job{};
  job.frame = {nullptr, pixels, static_cast<int>(width)};
  job.bins = make_bins(width, params);
  job.table = make_table(pixels, queue);
  job.entries = queue.take<int>(pixels);
  job.counts = queue.take<int>(blocks + 1);
  job.solver = take_solver(pixels, job.counts + blocks, queue);
  job.sums = {queue.take<unsigned>(pixels), queue.take<unsigned>(pixels), queue.take<FixedSum>(pixels),
              queue.take<FixedSum>(pixels)};
  job.gradients = {queue.take<State>(1), queue.take<float>(kBlocks), queue.take<int>(1)};
  return job;
}

void find_vertices(const Job& job, CudaQueue& queue) {
  const int64_t pixels = job.frame.count;
  const unsigned blocks = job.pixel_blocks();
  launch(queue, clear_table_kernel, blocks_for(job.table.capacity()), kThreads, job.table);
  launch(queue, find_kernel, blocks, kThreads, job.frame, job.bins, job.table, job.entries);
  launch(queue, count_kernel, blocks, kThreads, job.table, job.entries, pixels, job.counts);
  launch(queue, scan_kernel, 1, kScanThreads, job.counts, static_cast<int>(blocks));
  launch(queue, number_kernel, blocks, kThreads, job.table, job.entries, pixels, job.counts, job.solver);
  launch(queue, join_kernel, job.vertex_blocks(), kThreads, job.table, job.bins, job.solver, job.sums);
}

void splat(const Job& job, const Values& values, CudaQueue& queue) {
  const unsigned blocks = job.pixel_blocks();
  launch(queue, measure_kernel, blocks, kThreads, job.table, values, job.entries, job.solver, job.sums);
  launch(queue, splat_kernel, blocks, kThreads, values, job.entries, job.solver, job.sums);
  launch(queue, start_kernel, job.vertex_blocks(), kThreads, job.solver, job.sums);
}

void solve(Job job, const patchcut_bilateral_solver_params& params, CudaQueue& queue) {
  Solver& solver = job.solver;
  const unsigned blocks = job.vertex_blocks();
  for (int64_t i = 0; i < params.bistochastic_iterations; ++i) {
    launch(queue, balance_kernel, blocks, kThreads, solver, solver.scale, solver.next_scale);
    std::swap(solver.scale, solver.next_scale);
  }
  launch(queue, set_up_kernel, blocks, kThreads, solver, params.smoothness);
  launch(queue, residual_kernel, blocks, kThreads, solver, job.gradients);
  for (int64_t i = 0; i < params.iterations; ++i) {
    launch(queue, turn_kernel, blocks, kThreads, solver, job.gradients.state);
    launch(queue, apply_kernel, blocks, kThreads, solver, job.gradients);
    launch(queue, step_kernel, blocks, kThreads, solver, job.gradients);
  }
}

}  // namespace

void bilateral_solver_cuda(const uint8_t* frames, const float* soft_maps, const float* confidence,
                           int64_t batch, int64_t height, int64_t width,
                           const patchcut_bilateral_solver_params& params, float* out, CudaQueue& queue) {
  const int64_t pixels = height * width;
  if (batch * pixels == 0) return;
  Job job = make_job(height, width, params, queue);
  if (queue.only_counts()) return;
  queue.clear(job.gradients.arrived, 1);
  for (int64_t b = 0; b < batch; ++b) {
    job.frame.pixels = frames + b * pixels * 3;
    find_vertices(job, queue);
    splat(job, {soft_maps + b * pixels, confidence + b * pixels, pixels}, queue);
    solve(job, params, queue);
    launch(queue, slice_kernel, job.pixel_blocks(), kThreads, job.entries, job.solver.x, pixels,
           out + b * pixels);
  }
}

}  // namespace patchcut
