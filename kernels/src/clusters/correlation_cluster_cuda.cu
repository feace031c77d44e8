// Three kernels bring the affinity into the integers that correlation_cluster_cpu.cpp speaks of; then one
// block takes one start of one item to its local optimum, and the last kernel keeps the best start. Threads
// share the nodes out: a thread alone reads and writes the sums of its nodes, so that a move needs few
// barriers. Between two of these only what is small is shared: sizes, the next move.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "clusters/correlation_cluster.h"
#include "cpu/random.h"
#include "cuda/arg_largest.cuh"
#include "cuda/launch.cuh"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxThreads = 512;  // of a block of search_kernel
constexpr int kSide = 32;
constexpr int kPatience = 32;  // as on the CPU

// ---- weights

struct TransposedTile {
  float values[kSide][kSide + 1];
};

// One block: a tile of (W + W^T) / 2, zeros on the diagonal, of item blockIdx.z.
template <class T>
__global__ void __launch_bounds__(kThreads) average_kernel(const T* affinity, int n, float* averages) {
  constexpr int kRows = kThreads / kSide;
  auto& tile = shared_memory<TransposedTile>().values;
  const int64_t item = static_cast<int64_t>(blockIdx.z) * n * n;
  const int first_row = static_cast<int>(blockIdx.y) * kSide;
  const int first_col = static_cast<int>(blockIdx.x) * kSide;
  const int x = static_cast<int>(threadIdx.x) % kSide;
  const int y = static_cast<int>(threadIdx.x) / kSide;
  for (int i = y; i < kSide; i += kRows) {
    const int row = first_col + i;
    const int col = first_row + x;
    if (row < n && col < n) tile[i][x] = to_float(affinity[item + static_cast<int64_t>(row) * n + col]);
  }
  __syncthreads();
  for (int i = y; i < kSide; i += kRows) {
    const int row = first_row + i;
    const int col = first_col + x;
    if (row >= n || col >= n) continue;
    const int64_t at = item + static_cast<int64_t>(row) * n + col;
    averages[at] = row == col ? 0.0f : (to_float(affinity[at]) + tile[x][i]) * 0.5f;
  }
}

// One warp: the absolute values of one row, added up, into the largest of such sums. Doubles of one sign are
// ordered as their bits are.
__global__ void __launch_bounds__(kThreads)
    largest_kernel(const float* averages, int64_t rows, int n, double* largest) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  double sum = 0.0;
  for (int j = lane; j < n; j += kWarp) sum += static_cast<double>(fabsf(averages[row * n + j]));
  sum = reduce_warp(sum, Sum());
  if (lane != 0) return;
  unsigned long long bits;
  memcpy(&bits, &sum, sizeof(bits));
  atomicMax(reinterpret_cast<unsigned long long*>(largest + row / n), bits);
}

// How many integers make 1; 0 where an entry is not finite.
__device__ double scale_of(double largest) {
  if (!(largest <= DBL_MAX)) return 0.0;
  return largest > 0.0 ? ldexp(1.0, 28 - ilogb(largest)) : 1.0;
}

// In place: averages become integers.
__global__ void __launch_bounds__(kThreads)
    round_kernel(const float* averages, int64_t size, const double* largest, int32_t* weights) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (e >= size) return;
  const int64_t at = blockIdx.y * size + e;
  const double scale = scale_of(largest[blockIdx.y]);
  const float value = averages[at];
  weights[at] = scale == 0.0 ? 0 : static_cast<int32_t>(rint(static_cast<double>(value) * scale));
}

// ---- one partition

// Of a block of any number of whole warps.
template <class T, class Operation>
__device__ __forceinline__ T reduce_any_block(T value, const Operation& operation) {
  return reduce_warps(value, static_cast<int>(blockDim.x) / kWarp, operation);
}

// Where a node came from.
struct Undo {
  int node;
  int cluster;
};

// Memory of every start of every item.
struct SearchMemory {
  int32_t* labels;             // [batch, starts, n], number of each node's cluster; -1 for none yet
  int32_t* locked;             // [batch, starts, n], the chain that moved a node last
  int32_t* order;              // [batch, starts, n]
  uint64_t* keys;              // [batch, starts, n]
  Undo* undo;                  // [batch, starts, n]
  int32_t* sizes;              // [batch, starts, slots], 0 where a number is free
  int32_t* sums;               // [batch, starts, slots, n], weights between cluster and node, added up
  unsigned long long* common;  // [batch, starts, slots]
  long long* objectives;       // [batch, starts]
};

struct SearchShared {
  int target;  // of the next move
  int from;
  int vacant;  // the lowest number that is free; -1 without one
};

// What the threads of a block do together. Every thread holds the same values here.
struct Search {
  const int32_t* weights;  // [n, n]
  int n;
  int slots;
  SearchMemory memory;  // of this start
  int used;             // numbers below it have their sums set
  int chain;            // how many there were

  __device__ static SearchShared& shared() { return shared_memory<SearchShared>(); }

  __device__ int32_t& sum(int cluster, int node) const {
    return memory.sums[static_cast<int64_t>(cluster) * n + node];
  }

  template <class Body>
  __device__ void for_own_nodes(const Body& body) const {
    for (int j = static_cast<int>(threadIdx.x); j < n; j += static_cast<int>(blockDim.x)) body(j);
  }

  __device__ void clear() {
    for_own_nodes([&](int j) {
      memory.labels[j] = -1;
      memory.locked[j] = 0;
    });
    for (int c = static_cast<int>(threadIdx.x); c < slots; c += static_cast<int>(blockDim.x)) {
      memory.sizes[c] = 0;
    }
    if (threadIdx.x == 0) shared().vacant = 0;
    used = chain = 0;
    __syncthreads();
  }

  // By the first thread, once a number's size has become 0 or more than that.
  __device__ void find_vacant() const {
    int number = 0;
    while (number < slots && memory.sizes[number] > 0) ++number;
    shared().vacant = number < slots ? number : -1;
  }

  __device__ void move_node(int node, int from, int target) {
    const bool fresh = target == used;
    const int32_t* row = weights + static_cast<int64_t>(node) * n;
    for_own_nodes([&](int j) {
      const int32_t weight = row[j];
      if (from >= 0) sum(from, j) -= weight;
      sum(target, j) = (fresh ? 0 : sum(target, j)) + weight;
    });
    if (fresh) ++used;
    if (threadIdx.x == 0) {
      if (from >= 0) --memory.sizes[from];
      const bool changes = ++memory.sizes[target] == 1 || (from >= 0 && memory.sizes[from] == 0);
      memory.labels[node] = target;
      if (changes) find_vacant();
    }
    __syncthreads();
  }

  // For a node that has no cluster yet: the one that it has most in common with.
  __device__ int best_cluster(int node) const {
    int best = -1;
    int largest = 0;
    for (int c = 0; c < used; ++c) {
      const int common = sum(c, node);
      if (best >= 0 && common <= largest) continue;
      best = c;
      largest = common;
    }
    return best < 0 || (largest <= 0 && used < slots) ? used : best;
  }

  // By random keys; the first start takes nodes as they come.
  __device__ void order_nodes(uint64_t seed, int start) const {
    if (start == 0) return for_own_nodes([&](int j) { memory.order[j] = j; });
    const RandomStream random(seed, static_cast<uint64_t>(start));
    for_own_nodes([&](int j) { memory.keys[j] = random.bits(static_cast<uint64_t>(j)); });
    __syncthreads();
    for_own_nodes([&](int j) {
      const uint64_t key = memory.keys[j];
      int rank = 0;
      for (int i = 0; i < n; ++i) rank += memory.keys[i] < key;
      memory.order[rank] = j;
    });
  }

  __device__ void insert_nodes() {
    __syncthreads();  // the order is known
    for (int t = 0; t < n; ++t) {
      const int node = memory.order[t];
      if (static_cast<int>(threadIdx.x) == node % static_cast<int>(blockDim.x)) {
        shared().target = best_cluster(node);
      }
      __syncthreads();
      move_node(node, -1, shared().target);
    }
  }

  __device__ void join_all() {
    for_own_nodes([&](int j) {
      int32_t total = 0;
      for (int i = 0; i < n; ++i) total += weights[static_cast<int64_t>(i) * n + j];
      sum(0, j) = total;
      memory.labels[j] = 0;
    });
    used = 1;
    if (threadIdx.x == 0) {
      memory.sizes[0] = n;
      find_vacant();
    }
    __syncthreads();
  }

  // What moving a node gains at best, as `indexed`, and where to; 0 where it cannot move.
  __device__ IndexedValue best_move_of(int node, int vacant, int* target) const {
    if (memory.locked[node] == chain) return 0;
    const int label = memory.labels[node];
    bool found = false;
    int largest = 0;
    for (int c = 0; c < used; ++c) {
      if (c == label || memory.sizes[c] == 0) continue;
      const int common = sum(c, node);
      if (found && common <= largest) continue;
      found = true;
      largest = common;
      *target = c;
    }
    if (vacant >= 0 && (!found || largest <= 0) && memory.sizes[label] > 1) {
      found = true;
      largest = 0;
      *target = vacant;
    }
    return found ? indexed(largest - sum(label, node), node) : 0;
  }

  // The move that gains most or loses least, in shared(); 0 where no node can move.
  __device__ IndexedValue best_move() const {
    IndexedValue best = 0;
    int best_target = -1;
    const int vacant = shared().vacant;
    for_own_nodes([&](int j) {
      int target = -1;
      const IndexedValue move = best_move_of(j, vacant, &target);
      if (move <= best) return;
      best = move;
      best_target = target;
    });
    const IndexedValue all = reduce_any_block(best, Max());
    if (all != 0 && all == best) {
      shared().target = best_target;
      shared().from = memory.labels[index_of(all)];
      memory.locked[index_of(all)] = chain;
    }
    __syncthreads();
    return all;
  }

  // As on the CPU: the node that gains most or loses least, each node once, back to the best.
  __device__ bool gain_by_chain() {
    ++chain;
    long long gain = 0;
    long long best = 0;
    int moves = 0;
    int kept = 0;
    while (moves < min(n, kept + kPatience)) {
      const IndexedValue move = best_move();
      if (move == 0) break;
      const int node = index_of(move);
      if (threadIdx.x == 0) memory.undo[moves] = {node, shared().from};
      ++moves;
      move_node(node, shared().from, shared().target);
      gain += int_of(move);
      if (gain <= best) continue;
      best = gain;
      kept = moves;
    }
    while (moves > kept) {
      const Undo undo = memory.undo[--moves];
      const int from = memory.labels[undo.node];
      __syncthreads();  // all have read it
      move_node(undo.node, from, undo.cluster);
    }
    return best > 0;
  }

  // Leaves in memory.common what cluster a has in common with every cluster.
  __device__ void add_common(int a) const {
    for (int c = static_cast<int>(threadIdx.x); c < used; c += static_cast<int>(blockDim.x)) {
      memory.common[c] = 0;
    }
    __syncthreads();
    for_own_nodes([&](int j) {
      atomicAdd(&memory.common[memory.labels[j]],
                static_cast<unsigned long long>(static_cast<long long>(sum(a, j))));
    });
    __syncthreads();
  }

  // Joins the two clusters that gain most by it, the first two of equals. Whether any two gain.
  __device__ bool gain_by_merge() {
    long long largest = 0;
    long long pair = 0;
    for (int a = 0; a < used; ++a) {
      if (memory.sizes[a] == 0) continue;
      add_common(a);
      for (int b = a + 1 + static_cast<int>(threadIdx.x); b < used; b += static_cast<int>(blockDim.x)) {
        const auto common = static_cast<long long>(memory.common[b]);
        if (common <= largest) continue;
        largest = common;
        pair = static_cast<long long>(a) * used + b;
      }
      __syncthreads();
    }
    const long long all = reduce_any_block(largest, Max());
    if (all == 0) return false;
    const long long first = -reduce_any_block(largest == all ? -pair : -INT64_MAX, Max());
    merge(static_cast<int>(first / used), static_cast<int>(first % used));
    return true;
  }

  __device__ void merge(int into, int gone) {
    for_own_nodes([&](int j) {
      sum(into, j) += sum(gone, j);
      sum(gone, j) = 0;
      if (memory.labels[j] == gone) memory.labels[j] = into;
    });
    if (threadIdx.x == 0) {
      memory.sizes[into] += memory.sizes[gone];
      memory.sizes[gone] = 0;
      find_vacant();
    }
    __syncthreads();
  }

  __device__ long long objective() const {
    long long twice = 0;
    for_own_nodes([&](int j) { twice += sum(memory.labels[j], j); });
    return reduce_any_block(twice, Sum()) / 2;
  }
};

__device__ SearchMemory memory_of(const SearchMemory& all, int64_t start, int n, int slots) {
  return {all.labels + start * n,       all.locked + start * n,     all.order + start * n,
          all.keys + start * n,         all.undo + start * n,       all.sizes + start * slots,
          all.sums + start * slots * n, all.common + start * slots, all.objectives + start};
}

// One block: start blockIdx.x of item blockIdx.y.
__global__ void __launch_bounds__(kMaxThreads)
    search_kernel(const int32_t* weights, int n, int slots, uint64_t seed, SearchMemory memory) {
  const int64_t item = blockIdx.y;
  const int start = static_cast<int>(blockIdx.x);
  Search search{
      weights + item * n * n, n, slots, memory_of(memory, item * gridDim.x + start, n, slots), 0, 0};
  search.clear();
  if (start == 1) {
    search.join_all();
  } else {
    search.order_nodes(seed, start);
    search.insert_nodes();
  }
  const int64_t most_rounds = kMostSearchRounds + 16 * static_cast<int64_t>(n);  // as on the CPU
  for (int64_t round = 0; round < most_rounds; ++round) {
    if (!search.gain_by_chain() && !search.gain_by_merge()) break;
  }
  const long long objective = search.objective();
  if (threadIdx.x == 0) *search.memory.objectives = objective;
}

// ---- the best of all starts

// For each number of a cluster, [batch, slots].
struct Numbering {
  int32_t* firsts;   // its first node; n for none
  int32_t* numbers;  // how many have an earlier one
};

struct Results {
  int32_t* labels;    // [batch, n]
  int32_t* counts;    // [batch]
  float* objectives;  // [batch]
};

// Numbers by first nodes; returns how many there are. Called by all threads.
__device__ int number_clusters(const int32_t* labels, int n, int slots, int32_t* firsts, int32_t* numbers) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int c = thread; c < slots; c += kThreads) firsts[c] = n;
  __syncthreads();
  for (int j = thread; j < n; j += kThreads) atomicMin(&firsts[labels[j]], j);
  __syncthreads();
  int count = 0;
  for (int c = thread; c < slots; c += kThreads) {
    int number = 0;
    for (int other = 0; other < slots; ++other) number += firsts[other] < firsts[c];
    numbers[c] = number;
    count += firsts[c] < n;
  }
  return reduce_block<kThreads>(count, Sum());
}

// One block: item blockIdx.x.
__global__ void __launch_bounds__(kThreads)
    choose_kernel(SearchMemory memory, int starts, int n, int slots, const double* largest,
                  Numbering numbering, Results results) {
  const int64_t item = blockIdx.x;
  const long long* objectives = memory.objectives + item * starts;
  int best = 0;
  for (int start = 1; start < starts; ++start) {
    if (objectives[start] > objectives[best]) best = start;
  }
  const int32_t* labels = memory.labels + (item * starts + best) * n;
  int32_t* numbers = numbering.numbers + item * slots;
  const int count = number_clusters(labels, n, slots, numbering.firsts + item * slots, numbers);
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kThreads) {
    results.labels[item * n + j] = numbers[labels[j]];
  }
  if (threadIdx.x != 0) return;
  results.counts[item] = count;
  // 0 / 0, NaN, where an entry was not finite.
  results.objectives[item] =
      static_cast<float>(static_cast<double>(objectives[best]) / scale_of(largest[item]));
}

// ---- what is queued

// Returns integers [batch, n, n]; `largest` [batch] says their scale.
int32_t* queue_weights(const void* affinity, int32_t dtype, int64_t batch, int64_t n, double* largest,
                       CudaQueue& queue) {
  const int64_t size = n * n;
  int32_t* weights = queue.take<int32_t>(batch * size);
  float* averages = reinterpret_cast<float*>(weights);
  const int nodes = static_cast<int>(n);
  const auto side = static_cast<unsigned>(ceil_div<int64_t>(n, kSide));
  const auto items = static_cast<unsigned>(batch);
  with_float_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(queue, average_kernel<T>, dim3(side, side, items), kThreads, static_cast<const T*>(affinity),
           nodes, averages);
  });
  queue.clear(largest, batch);
  launch(queue, largest_kernel, static_cast<unsigned>(ceil_div<int64_t>(batch * n, kThreads / kWarp)),
         kThreads, averages, batch * n, nodes, largest);
  launch(queue, round_kernel, dim3(static_cast<unsigned>(ceil_div<int64_t>(size, kThreads)), items), kThreads,
         averages, size, largest, weights);
  return weights;
}

SearchMemory take_search(int64_t starts, int64_t n, int64_t slots, CudaQueue& queue) {
  return {queue.take<int32_t>(starts * n),
          queue.take<int32_t>(starts * n),
          queue.take<int32_t>(starts * n),
          queue.take<uint64_t>(starts * n),
          queue.take<Undo>(starts * n),
          queue.take<int32_t>(starts * slots),
          queue.take<int32_t>(starts * slots * n),
          queue.take<unsigned long long>(starts * slots),
          queue.take<long long>(starts)};
}

}  // namespace

void correlation_cluster_cuda(const void* affinity, int32_t dtype, int64_t batch, int64_t n,
                              const patchcut_correlation_cluster_params& params, int32_t* labels,
                              int32_t* counts, float* objectives, CudaQueue& queue) {
  if (batch == 0) return;
  const int64_t starts = start_count(n);
  const int64_t slots = std::min(params.max_clusters, n);
  const int nodes = static_cast<int>(n);
  double* largest = queue.take<double>(batch);
  const int32_t* weights = queue_weights(affinity, dtype, batch, n, largest, queue);
  const SearchMemory memory = take_search(batch * starts, n, slots, queue);
  const Numbering numbering{queue.take<int32_t>(batch * slots), queue.take<int32_t>(batch * slots)};
  const auto threads =
      static_cast<unsigned>(std::min<int64_t>(kMaxThreads, ceil_div<int64_t>(n, kWarp) * kWarp));
  launch(queue, search_kernel, dim3(static_cast<unsigned>(starts), static_cast<unsigned>(batch)), threads,
         weights, nodes, static_cast<int>(slots), params.seed, memory);
  launch(queue, choose_kernel, static_cast<unsigned>(batch), kThreads, memory, static_cast<int>(starts),
         nodes, static_cast<int>(slots), largest, numbering, Results{labels, counts, objectives});
}

}  // namespace patchcut
