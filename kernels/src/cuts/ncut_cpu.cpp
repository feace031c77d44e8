#include <algorithm>
#include <atomic>
#include <cmath>

#include "cpu/errors.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "cuts/cut_graphs.h"
#include "cuts/krylov.h"
#include "cuts/ncut.h"
#include "cuts/simd.h"
#include "nodes/affinity.h"

namespace patchcut {
namespace {

struct Results {
  int64_t n;
  int64_t k;
  float* eigenvalues;  // [k]
  float* vectors;      // [n, k]
  float* residuals;    // [k]
  int32_t* products;   // [1], or null

  void store_products(int64_t count) const {
    if (products != nullptr) *products = static_cast<int32_t>(count);
  }

  // Column c is `scale` times x, with the sign that makes its entry of largest magnitude positive.
  void store(int64_t c, double eigenvalue, double residual, const float* x, float scale) const {
    eigenvalues[c] = static_cast<float>(eigenvalue);
    residuals[c] = static_cast<float>(residual);
    const auto smaller = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
    if (*std::max_element(x, x + n, smaller) < 0.0f) scale = -scale;
    for (int64_t i = 0; i < n; ++i) vectors[i * k + c] = scale * x[i];
  }
};

struct Weights {
  const float* entries;   // [n, n]
  const float* row_sums;  // [n], or null: not known
};

// Weights of a graph of features, without the floor.
Weights store_weights(const float* features, int64_t n, int64_t d, const patchcut_ncut_params& params,
                      Scratch& scratch) {
  patchcut_affinity_params settings = PATCHCUT_AFFINITY_DEFAULTS;
  settings.threshold = params.threshold;
  float* weights = scratch.take<float>(n * n);
  float* row_sums = scratch.take<float>(n);
  affinity_cpu(features, n, d, settings, weights, row_sums);
  if (params.graph == PATCHCUT_GRAPH_THRESHOLDED) return {weights, row_sums};
  parallel_for(n, n / 6, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = weights + i * n;
      for (int64_t j = 0; j < n; ++j) row[j] = row[j] > 0.0f ? 1.0f : 0.0f;
      row_sums[i] = simd().sum(n, row);
    }
  });
  return {weights, row_sums};
}

// products -> the parts orthogonal to `known`, less value * vector; returns its length.
double residual_length(const SimdTable& simd, int64_t size, const float* known, double value,
                       const float* vector, float* product) {
  const CutTable& loops = simd.get<CutTable>();
  float along = 0.0f;
  loops.dot_rows(1, size, product, size, known, &along);
  const float scales[2] = {-along, static_cast<float>(-value)};
  loops.add_rows(1, size, known, size, scales, product);
  loops.add_rows(1, size, vector, size, scales + 1, product);
  return std::sqrt(static_cast<double>(simd.sum_squares(size, product)));
}

// Node vectors [n, k] -> rows [k, n], at most 1 in magnitude.
float* to_rows(const float* start, int64_t n, int64_t k, Scratch& scratch) {
  float* rows = scratch.take<float>(k * n);
  for (int64_t c = 0; c < k; ++c) {
    float* row = rows + c * n;
    for (int64_t i = 0; i < n; ++i) row[i] = start[i * k + c];
    const float largest = simd().largest_magnitude(n, row);
    for (int64_t i = 0; largest > 0.0f && i < n; ++i) row[i] /= largest;
  }
  return rows;
}

void solve_dense(const DenseGraph& graph, const float* start, KrylovParams params, const Results& results) {
  const int64_t n = results.n;
  const SimdTable& table = simd();
  Scratch scratch;
  if (start != nullptr) {
    float* rows = to_rows(start, n, params.k, scratch);
    for (int64_t i = 0; i < params.k * n; ++i) {
      const float scale = graph.scales()[i % n];
      rows[i] = scale > 0.0f ? rows[i] / scale : 0.0f;
    }
    params.start = rows;
  }
  double* values = scratch.take<double>(params.k);
  float* vectors = scratch.take<float>(params.k * n);
  float* products = scratch.take<float>(params.k * n);
  results.store_products(largest_eigenpairs(graph, graph.known(), params, values, vectors));
  graph.multiply(params.k, vectors, products);
  for (int64_t c = 0; c < params.k; ++c) {
    float* vector = vectors + c * n;
    const double length = residual_length(table, n, graph.known(), values[c], vector, products + c * n);
    const float squares = table.sum_squares(n, vector);
    table.multiply_row(n, vector, graph.scales(), vector);
    results.store(c, 1.0 - values[c], length, vector, squares > 0.0f ? 1.0f / std::sqrt(squares) : 0.0f);
  }
}

// The eigenvector of the nodes is x = D^-1 F v / root(value), for what it is F' D^-1 F v = value v; so v is
// along F' x.
void solve_cosine(const CosineGraph& graph, const float* start, KrylovParams params, const Results& results) {
  constexpr double kIndistinct = 1e-6;  // of the largest eigenvalue: smaller ones are rounding errors
  const int64_t size = graph.size();
  const int64_t k = params.k;
  const SimdTable& table = simd();
  Scratch scratch;
  double* values = scratch.take<double>(k);
  float* vectors = scratch.take<float>(k * size);
  float* products = scratch.take<float>(k * size);
  float* again = scratch.take<float>(k * size);
  float* nodes = scratch.take<float>(k * results.n);
  if (start != nullptr) {
    float* rows = scratch.take<float>(k * size);
    graph.from_nodes(k, to_rows(start, results.n, k, scratch), rows);
    params.start = rows;
  }
  results.store_products(largest_eigenpairs(graph, graph.known(), params, values, vectors));
  graph.multiply(k, vectors, products);
  for (int64_t c = 0; c < k; ++c) {
    residual_length(table, size, graph.known(), values[c], vectors + c * size, products + c * size);
  }
  graph.multiply(k, products, again);
  graph.to_nodes(k, vectors, nodes);
  const double least = kIndistinct * std::max(1.0, values[0]);
  for (int64_t c = 0; c < k; ++c) {
    const bool distinct = values[c] > least;
    float squares = 0.0f;
    table.get<CutTable>().dot_rows(1, size, products + c * size, size, again + c * size, &squares);
    const double scale = distinct ? 1.0 / std::sqrt(values[c]) : 0.0;
    const double length = std::sqrt(std::max(0.0, static_cast<double>(squares)));
    results.store(c, distinct ? 1.0 - values[c] : 1.0, length * scale, nodes + c * results.n,
                  static_cast<float>(scale));
  }
}

void check_finite(const char* op, const char* name, const float* features, int64_t n, int64_t d) {
  const SimdTable& table = simd();
  std::atomic<bool> finite{true};
  parallel_for(n, d / 8, [&](int64_t begin, int64_t end) {
    if (!table.all_finite((end - begin) * d, features + begin * d)) finite.store(false);
  });
  require_finite(finite, op, name);
}

}  // namespace

void ncut_cpu(const char* op, const float* features, int64_t n, int64_t d, int64_t k, const float* start,
              const patchcut_ncut_params& params, float* eigenvalues, float* vectors, float* residuals,
              int32_t* products) {
  Scratch scratch;
  const Results results{n, k, eigenvalues, vectors, residuals, products};
  const bool given = params.graph == PATCHCUT_GRAPH_AFFINITY;
  const bool stored = params.graph != PATCHCUT_GRAPH_COSINE;
  if (!given) check_finite(op, "features", features, n, d);
  if (start != nullptr) check_finite(op, "start", start, n, k);
  // Where W is read from memory, two vectors take as long as one.
  const KrylovParams krylov{k,
                            krylov_block(k, start != nullptr, stored),
                            params.iterations,
                            params.seed,
                            nullptr,
                            params.tolerance,
                            !stored};
  if (!stored) {
    return solve_cosine(CosineGraph(op, features, n, d, params.offset, scratch), start, krylov, results);
  }
  const Weights weights = given ? Weights{features, nullptr} : store_weights(features, n, d, params, scratch);
  const float floor = given ? 0.0f : params.floor;
  solve_dense(DenseGraph(op, weights.entries, weights.row_sums, n, floor, scratch), start, krylov, results);
}

}  // namespace patchcut
