#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>

#include "clusters/correlation_cluster.h"
#include "clusters/simd.h"
#include "cpu/errors.h"
#include "cpu/interrupt.h"
#include "cpu/random.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace patchcut {
namespace {

// A chain of moves ends this far behind its best. 16 find as much on features, 64 no more on random graphs.
constexpr int64_t kPatience = 32;

// Weights are integers: sums of them are exact, so that neither the instruction set nor the order of
// additions can change a decision.
struct Graph {
  const SimdTable& simd;
  const ClusterTable& loops;
  int64_t n;
  int64_t padded;    // n, to a multiple of kNodePadding
  int32_t* weights;  // [n, padded], symmetric, zeros on the diagonal and in the padding
  double scale;      // how many of them make 1
};

// What every node has in common with every cluster lies ready: a move changes two rows of it.
struct Partition {
  int32_t* labels;   // [padded], number of each node's cluster
  int32_t* free;     // [padded], -1 where the chain may still move a node; 0 in the padding
  int32_t* sizes;    // [slots], 0 where a number is free
  int32_t* numbers;  // [slots], those with nodes, ascending
  int32_t* sums;     // [slots, padded], weights between cluster and node, added up
  NodeMove* undo;    // [n], where each moved node came from
  int64_t* common;   // [slots]
  int32_t slots;
  int32_t used;  // numbers below it have their sums set
};

// ---- weights

// One block of rows of (W + W^T) / 2 as floats, in the place of the integers.
bool average_block(const Graph& graph, const float* affinity, int64_t first, float* tile, double* row_sums) {
  const int64_t n = graph.n;
  const int64_t panel = graph.simd.panel;
  const int64_t rows = std::min(panel, n - first);
  float* averages = reinterpret_cast<float*>(graph.weights);
  for (int64_t j = 0; j < n; j += panel) {
    const int64_t cols = std::min(panel, n - j);
    graph.simd.pack_transposed(cols, rows, affinity + j * n + first, n, tile);
    for (int64_t i = 0; i < rows; ++i) {
      graph.loops.average_rows(cols, affinity + (first + i) * n + j, tile + i * panel,
                               averages + (first + i) * graph.padded + j);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    float* row = averages + (first + i) * graph.padded;
    row[first + i] = 0.0f;
    std::fill(row + n, row + graph.padded, 0.0f);
    if (!graph.simd.all_finite(n, row)) return false;
    row_sums[first + i] = graph.loops.sum_absolute(n, row);
  }
  return true;
}

void make_weights(const float* affinity, Graph* graph) {
  Scratch scratch;
  double* row_sums = scratch.take<double>(graph->n);
  const int64_t panel = graph->simd.panel;
  std::atomic<bool> finite{true};
  parallel_for((graph->n + panel - 1) / panel, panel * graph->n, [&](int64_t begin, int64_t end) {
    Scratch block_scratch;
    float* tile = block_scratch.take<float>(panel * panel);
    for (int64_t block = begin; block < end; ++block) {
      if (!average_block(*graph, affinity, block * panel, tile, row_sums)) finite.store(false);
    }
  });
  require_finite(finite, "correlation_cluster", "affinity and the sum of a pair's two entries");
  const double largest = *std::max_element(row_sums, row_sums + graph->n);
  graph->scale = largest > 0.0 ? std::ldexp(1.0, 28 - std::ilogb(largest)) : 1.0;
  parallel_for(graph->n, graph->padded / 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int32_t* row = graph->weights + i * graph->padded;
      graph->loops.round_row(graph->padded, reinterpret_cast<const float*>(row), graph->scale, row);
    }
  });
}

// ---- one partition

int32_t vacant_number(const Partition& partition) {
  for (int32_t number = 0; number < partition.slots; ++number) {
    if (partition.sizes[number] == 0) return number;
  }
  return -1;
}

int64_t list_numbers(const Partition& partition) {
  int64_t count = 0;
  for (int32_t number = 0; number < partition.used; ++number) {
    if (partition.sizes[number] > 0) partition.numbers[count++] = number;
  }
  return count;
}

void move_node(const Graph& graph, Partition* partition, int64_t node, int32_t target) {
  if (target == partition->used) {
    std::fill_n(partition->sums + (partition->used++) * graph.padded, graph.padded, 0);
  }
  const int32_t before = partition->labels[node];
  int32_t* from = nullptr;
  if (before >= 0) {
    --partition->sizes[before];
    from = partition->sums + before * graph.padded;
  }
  ++partition->sizes[target];
  partition->labels[node] = target;
  graph.loops.move_weights(graph.padded, graph.weights + node * graph.padded, from,
                           partition->sums + target * graph.padded);
}

// For a node that has no cluster yet: the one that it has most in common with.
int32_t best_cluster(const Graph& graph, const Partition& partition, int64_t node) {
  int32_t best = -1;
  int32_t largest = 0;
  for (int32_t number = 0; number < partition.used; ++number) {
    const int32_t common = partition.sums[number * graph.padded + node];
    if (best >= 0 && common <= largest) continue;
    best = number;
    largest = common;
  }
  const bool may_open = partition.used < partition.slots;
  return best < 0 || (largest <= 0 && may_open) ? partition.used : best;
}

// The order in which a start takes up the nodes: their own, or by random keys.
void order_nodes(int64_t n, uint64_t seed, int64_t start, int64_t* order) {
  std::iota(order, order + n, int64_t{0});
  if (start == 0) return;
  Scratch scratch;
  uint64_t* keys = scratch.take<uint64_t>(n);
  const RandomStream random(seed, static_cast<uint64_t>(start));
  for (int64_t i = 0; i < n; ++i) keys[i] = random.bits(static_cast<uint64_t>(i));
  std::sort(order, order + n, [&](int64_t a, int64_t b) { return keys[a] < keys[b]; });
}

// Start 1 is one cluster; the others take up node after node.
void make_start(const Graph& graph, uint64_t seed, int64_t start, Partition* partition) {
  std::fill_n(partition->sizes, partition->slots, 0);
  std::fill_n(partition->labels, graph.padded, -1);
  std::fill_n(partition->free, graph.padded, 0);
  partition->used = 0;
  if (start == 1) {
    for (int64_t node = 0; node < graph.n; ++node) move_node(graph, partition, node, 0);
    return;
  }
  Scratch scratch;
  int64_t* order = scratch.take<int64_t>(graph.n);
  order_nodes(graph.n, seed, start, order);
  InterruptPoll poll;
  for (int64_t i = 0; i < graph.n; ++i) {
    poll.spend(graph.n);
    move_node(graph, partition, order[i], best_cluster(graph, *partition, order[i]));
  }
}

NodeMove best_move(const Graph& graph, const Partition& partition) {
  return graph.loops.best_move({graph.padded, list_numbers(partition), partition.numbers, partition.sizes,
                                partition.sums, partition.labels, partition.free, vacant_number(partition)});
}

// Moves the node that gains most or loses least, each node once, and takes back what comes after the best.
// Fiduccia and Mattheyses (1982), with any number of clusters. Whether anything is gained.
bool gain_by_chain(const Graph& graph, Partition* partition) {
  std::fill_n(partition->free, graph.n, -1);
  int64_t gain = 0;
  int64_t best = 0;
  int64_t moves = 0;
  int64_t kept = 0;
  InterruptPoll poll;
  while (moves < std::min(graph.n, kept + kPatience)) {
    poll.spend(graph.n * partition->used);
    const NodeMove move = best_move(graph, *partition);
    if (move.node < 0) break;
    partition->free[move.node] = 0;
    partition->undo[moves++] = {move.node, partition->labels[move.node], move.gain};
    move_node(graph, partition, move.node, move.target);
    gain += move.gain;
    if (gain <= best) continue;
    best = gain;
    kept = moves;
  }
  while (moves > kept) {
    const NodeMove& undo = partition->undo[--moves];
    move_node(graph, partition, undo.node, undo.target);
  }
  return best > 0;
}

// Joins the two clusters that gain most by it. Whether any two gain.
bool gain_by_merge(const Graph& graph, Partition* partition) {
  int64_t largest = 0;
  int32_t into = 0;
  int32_t gone = 0;
  InterruptPoll poll;
  for (int32_t a = 0; a < partition->used; ++a) {
    if (partition->sizes[a] == 0) continue;
    poll.spend(graph.n);
    std::fill_n(partition->common, partition->used, 0);
    const int32_t* sums = partition->sums + a * graph.padded;
    for (int64_t node = 0; node < graph.n; ++node) partition->common[partition->labels[node]] += sums[node];
    for (int32_t b = a + 1; b < partition->used; ++b) {
      if (partition->common[b] <= largest) continue;
      largest = partition->common[b];
      into = a;
      gone = b;
    }
  }
  if (largest == 0) return false;
  for (int64_t node = 0; node < graph.n; ++node) {
    if (partition->labels[node] == gone) move_node(graph, partition, node, into);
  }
  return true;
}

int64_t objective_of(const Graph& graph, const Partition& partition) {
  int64_t twice = 0;
  for (int64_t node = 0; node < graph.n; ++node) {
    twice += partition.sums[partition.labels[node] * graph.padded + node];
  }
  return twice / 2;
}

// Labels of the local optimum that a start leads to; returns its objective.
int64_t solve(const Graph& graph, const patchcut_correlation_cluster_params& params, int64_t start,
              int32_t* labels) {
  Scratch scratch;
  const int64_t slots = std::min(params.max_clusters, graph.n);
  Partition partition{scratch.take<int32_t>(graph.padded),
                      scratch.take<int32_t>(graph.padded),
                      scratch.take<int32_t>(slots),
                      scratch.take<int32_t>(slots),
                      scratch.take<int32_t>(slots * graph.padded),
                      scratch.take<NodeMove>(graph.n),
                      scratch.take<int64_t>(slots),
                      static_cast<int32_t>(slots),
                      0};
  make_start(graph, params.seed, start, &partition);
  // Weights are whole numbers, and each of these rounds gains at least 1: there is an end. It comes after
  // few rounds; the bound is for graphs that are made to need many.
  const int64_t most_rounds = kMostSearchRounds + 16 * graph.n;
  for (int64_t round = 0; round < most_rounds; ++round) {
    check_interrupt();
    if (!gain_by_chain(graph, &partition) && !gain_by_merge(graph, &partition)) break;
  }
  std::copy_n(partition.labels, graph.n, labels);
  return objective_of(graph, partition);
}

// labels, numbered by their first nodes; returns how many there are.
int32_t number_labels(int64_t n, const int32_t* slots, int32_t* labels) {
  Scratch scratch;
  int32_t* numbers = scratch.take<int32_t>(n);
  std::fill_n(numbers, n, -1);
  int32_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (numbers[slots[i]] < 0) numbers[slots[i]] = count++;
    labels[i] = numbers[slots[i]];
  }
  return count;
}

}  // namespace

void correlation_cluster_cpu(const float* affinity, int64_t n,
                             const patchcut_correlation_cluster_params& params, int32_t* labels,
                             int32_t* count, float* objective) {
  Scratch scratch;
  const int64_t padded = (n + kNodePadding - 1) / kNodePadding * kNodePadding;
  const SimdTable& table = simd();
  Graph graph{table, table.get<ClusterTable>(), n, padded, scratch.take<int32_t>(n * padded), 1.0};
  make_weights(affinity, &graph);
  const int64_t starts = start_count(n);
  int32_t* found = scratch.take<int32_t>(starts * n);
  int64_t* objectives = scratch.take<int64_t>(starts);
  parallel_for(starts, n * n + 400 * n, [&](int64_t begin, int64_t end) {
    for (int64_t start = begin; start < end; ++start) {
      objectives[start] = solve(graph, params, start, found + start * n);
    }
  });
  const int64_t best = std::max_element(objectives, objectives + starts) - objectives;
  *count = number_labels(n, found + best * n, labels);
  *objective = static_cast<float>(static_cast<double>(objectives[best]) / graph.scale);
  require(std::isfinite(*objective), "correlation_cluster",
          "affinity overflows: the weights within clusters, added up, must fit float32");
}

}  // namespace patchcut
