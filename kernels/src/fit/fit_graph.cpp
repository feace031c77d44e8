#include "fit/fit_graph.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "cpu/errors.h"
#include "cpu/gemm.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "fit/simd.h"

namespace patchcut {
namespace {

struct Graph {
  const SimdTable& simd;
  const FitTable& loops;
  const float* affinity;  // [n, n]
  int64_t n;
  float* degrees;  // [n]
  float* scales;   // [n], D^-1/2
};

// edges[n] = row i of the affinity's positive part. Returns the least of the row and 0, NaN where it is not
// finite.
float measure_row(const Graph& graph, int64_t i, float* edges) {
  const float* row = graph.affinity + i * graph.n;
  const float least = graph.loops.keep_positive(graph.n, row, edges);
  graph.degrees[i] = graph.simd.sum(graph.n, edges);
  graph.scales[i] = 1.0f / std::sqrt(graph.degrees[i] + (row[i] > 0.0f ? 0.0f : 1.0f));
  const bool finite = graph.simd.all_finite(graph.n, row) && std::isfinite(graph.degrees[i]);
  return finite ? least : std::nanf("");
}

float measure_edges(const Graph& graph) {
  Scratch scratch;
  float* least = scratch.take<float>(graph.n);
  for_row_blocks(graph.n, graph.n / 4, [&](int64_t first, int64_t rows) {
    Scratch block_scratch;
    float* edges = block_scratch.take<float>(graph.n);
    for (int64_t i = first; i < first + rows; ++i) least[i] = measure_row(graph, i, edges);
  });
  require(graph.simd.all_finite(graph.n, least), "gnn_fit",
          "affinity must be finite, with finite row sums, got NaN or infinity");
  return *std::min_element(least, least + graph.n);
}

// packed[n, d] = scales * features, in panels
void pack_scaled_features(const Graph& graph, const float* features, int64_t d, float* packed) {
  const int64_t panel = graph.simd.panel;
  std::atomic<bool> finite{true};
  parallel_for((d + panel - 1) / panel, graph.n * panel / 4, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin * panel; j < std::min(end * panel, d); j += panel) {
      const int64_t cols = std::min(panel, d - j);
      float* out = packed + j * graph.n;
      for (int64_t i = 0; i < graph.n; ++i, out += panel) {
        graph.simd.scale_row(cols, features + i * d + j, graph.scales[i], out);
        std::fill(out + cols, out + panel, 0.0f);
      }
      if (!graph.simd.all_finite(graph.n * panel, packed + j * graph.n)) {
        finite.store(false, std::memory_order_relaxed);
      }
    }
  });
  require_finite(finite, "gnn_fit", "features");
}

}  // namespace

float propagate_features(const float* features, const float* affinity, int64_t n, int64_t d, float* out,
                         int64_t ldo, float* degrees) {
  const SimdTable& table = simd();
  Scratch scratch;
  const Graph graph{table, table.get<FitTable>(), affinity, n, degrees, scratch.take<float>(n)};
  float* packed = scratch.take<float>(packed_size(table, n, d));
  const float least = measure_edges(graph);
  pack_scaled_features(graph, features, d, packed);
  for_row_blocks(n, n * d / 24, [&](int64_t first, int64_t rows) {
    Scratch block_scratch;
    float* edges = block_scratch.take<float>(rows * n);
    for (int64_t i = 0; i < rows; ++i) {
      float* row = edges + i * n;
      graph.loops.keep_positive(n, affinity + (first + i) * n, row);
      if (row[first + i] == 0.0f) row[first + i] = 1.0f;
    }
    gemm_rows(table, rows, d, n, edges, n, packed, out + first * ldo, ldo);
    for (int64_t i = first; i < first + rows; ++i) {
      table.scale_row(d, out + i * ldo, graph.scales[i], out + i * ldo);
    }
  });
  return least;
}

}  // namespace patchcut
