// The graph (weights by affinity_cuda, or unit rows), its row sums (degrees_kernel, nodes_kernel), the Krylov
// space (krylov.cuh), and one product more for the residuals (finish_kernel). Of a graph of features without
// a threshold all is done in the space of features, see CosineGraph in cut_graphs.h.
#include <algorithm>
#include <cmath>

#include "cuda/arg_largest.cuh"
#include "cuda/unit_rows.cuh"
#include "cuts/krylov.cuh"
#include "cuts/ncut.h"
#include "nodes/affinity.h"

namespace patchcut {
namespace {

constexpr int kThreads = kKrylovThreads;

struct Job {
  int64_t batch;
  int64_t n;
  int64_t d;
  int64_t k;
  const float* start;  // [batch, n, k], or null
  const patchcut_ncut_params& params;
  float* eigenvalues;  // [batch, k]
  float* vectors;      // [batch, n, k]
  float* residuals;    // [batch, k]
  int32_t* products;   // [batch], or null

  KrylovSearch search(bool of_root) const {
    return {k, params.iterations, params.seed, start != nullptr, params.tolerance, of_root};
  }
};

// D^-1/2 W D^-1/2 with W = floor + (1 - floor) * weights.
template <class T>
struct StoredWeights {
  static constexpr bool kWantsSum = true;
  const T* weights;     // [batch, n, n]
  const float* scales;  // [batch, n], D^-1/2
  int rows;
  int columns;
  float floor;
  bool binary;  // any weight is 1

  __device__ __forceinline__ float edge(int row, int j) const {
    const float weight = to_float(weights[(static_cast<int64_t>(blockIdx.y) * rows + row) * columns + j]);
    return binary ? (weight > 0.0f ? 1.0f : 0.0f) : weight;
  }
  __device__ __forceinline__ float joined(float dot, float sum) const {
    return (1.0f - floor) * dot + floor * sum;
  }
  __device__ __forceinline__ float entry(int row, int j) const { return edge(row, j); }
  __device__ __forceinline__ float weight(int j) const {
    return scales[static_cast<int64_t>(blockIdx.y) * rows + j];
  }
  __device__ __forceinline__ float finish(int row, float dot, float sum) const {
    return weight(row) * joined(dot, sum);
  }
};

// Rows of (features, root of the offset), finished by D^-1.
struct FeatureRows {
  static constexpr bool kWantsSum = false;
  const float* features;         // [batch, rows, stride]
  const float* inverse_degrees;  // [batch, rows], or null: not finished
  int rows;
  int columns;  // with that of the offset, where there is one
  int d;
  int stride;
  float root_offset;

  __device__ __forceinline__ float entry(int row, int j) const {
    const int64_t node = static_cast<int64_t>(blockIdx.y) * rows + row;
    return j < d ? features[node * stride + j] : root_offset;
  }
  __device__ __forceinline__ float weight(int) const { return 1.0f; }
  __device__ __forceinline__ float finish(int row, float dot, float) const {
    return inverse_degrees == nullptr ? dot
                                      : dot * inverse_degrees[static_cast<int64_t>(blockIdx.y) * rows + row];
  }
};

// One warp: the row sum of one node.
template <class T>
__global__ void __launch_bounds__(kThreads) degrees_kernel(StoredWeights<T> graph, float* degrees) {
  const int row = static_cast<int>(blockIdx.x) * kKrylovWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (row >= graph.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sum = 0.0f;
  for (int j = lane; j < graph.columns; j += kWarp) sum += graph.edge(row, j);
  sum = reduce_warp(sum, Sum());
  if (lane == 0) {
    degrees[static_cast<int64_t>(blockIdx.y) * graph.rows + row] =
        graph.joined(sum, static_cast<float>(graph.columns));
  }
}

// One block an item: degrees become D^-1/2, and D^1/2 1 of unit length is the known vector. A node whose
// weights do not sum to more than 0 has no part in either.
__global__ void __launch_bounds__(kThreads) nodes_kernel(int n, float* degrees, Vectors known) {
  float* of_item = degrees + static_cast<int64_t>(blockIdx.y) * n;
  float total = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) total += fmaxf(of_item[i], 0.0f);
  total = reduce_block<kThreads>(total, Sum());
  const float scale = total > 0.0f ? 1.0f / sqrtf(total) : 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    const float degree = of_item[i];
    known.of_item()[i] = degree > 0.0f ? sqrtf(degree) * scale : 0.0f;
    of_item[i] = degree > 0.0f ? 1.0f / sqrtf(degree) : 0.0f;
  }
}

// One vector of one item, and where its results go.
struct Cut {
  int64_t item;
  int c;
  int k;

  __device__ __forceinline__ int64_t at() const { return item * k + c; }
};

// vectors[:, c] = scale * x, with the sign that makes the entry of largest magnitude positive. All threads of
// the block call it.
__device__ __forceinline__ void store_vector(const Cut& cut, int n, const float* x, float scale,
                                             float* vectors) {
  IndexedValue largest = indexed(-1.0f, 0);
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    largest = max(largest, indexed(fabsf(x[i]), i));
  }
  largest = reduce_block<kThreads>(largest, Max());
  const float signed_scale = x[index_of(largest)] < 0.0f ? -scale : scale;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    vectors[(cut.item * n + i) * cut.k + cut.c] = signed_scale * x[i];
  }
}

// product becomes what is left of it without its part along `known` and value * vector.
__device__ __forceinline__ void leave_residual(int size, const float* known, float value, const float* vector,
                                               float* product) {
  const float along = dot_block(product, known, size);
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) {
    product[i] -= along * known[i] + value * vector[i];
  }
  __syncthreads();
}

struct Results {
  float* eigenvalues;
  float* vectors;
  float* residuals;
  int32_t* products;  // or null

  // One thread of each block calls it.
  __device__ __forceinline__ void store(const KrylovSpace& space, const Cut& cut, float eigenvalue,
                                        float residual) const {
    eigenvalues[cut.at()] = eigenvalue;
    residuals[cut.at()] = residual;
    if (cut.c == 0 && products != nullptr) products[cut.item] = space.blocks_of(cut.item);
  }
};

// starts[c, i] = start[i, c], divided by the node's scale where there are some; one thread: one entry.
__global__ void __launch_bounds__(kThreads)
    start_kernel(const float* start, int n, int k, const float* scales, Vectors starts) {
  const int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (at >= n * k) return;
  const int64_t item = blockIdx.y;
  const int i = at / k;
  const float value = start[item * n * k + at];
  const float scale = scales == nullptr ? 1.0f : scales[item * n + i];
  starts.of_item()[at % k * n + i] = scale > 0.0f ? value / scale : 0.0f;
}

// [batch, k, n], or nothing where there is no start.
Vectors take_starts(const Job& job, const float* scales, CudaQueue& queue) {
  if (job.start == nullptr) return {};
  const int64_t count = job.k * job.n;
  const Vectors starts{queue.take<float>(job.batch * count), count, nullptr};
  launch(queue, start_kernel,
         dim3(static_cast<unsigned>(ceil_div<int64_t>(count, kThreads)), static_cast<unsigned>(job.batch)),
         kThreads, job.start, static_cast<int>(job.n), static_cast<int>(job.k), scales, starts);
  return starts;
}

// One block: one vector (blockIdx.x) of one item; `products` are those of the graph with `found`.
__global__ void __launch_bounds__(kThreads)
    finish_kernel(KrylovSpace space, const float* scales, Vectors found, Vectors products, Results results) {
  const Cut cut{static_cast<int64_t>(blockIdx.y), static_cast<int>(blockIdx.x), space.k};
  const int n = space.size;
  float* x = found.of_item() + static_cast<int64_t>(cut.c) * n;
  float* product = products.of_item() + static_cast<int64_t>(cut.c) * n;
  const float value = value_of(space, cut.c);
  leave_residual(n, space.basis().of_item(), value, x, product);
  const float residual = dot_block(product, product, n);
  const float squares = dot_block(x, x, n);
  if (threadIdx.x == 0) results.store(space, cut, 1.0f - value, sqrtf(residual));
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) x[i] *= scales[cut.item * n + i];
  __syncthreads();
  store_vector(cut, n, x, squares > 0.0f ? 1.0f / sqrtf(squares) : 0.0f, results.vectors);
}

template <class T>
void cut_stored(const Job& job, const T* weights, float floor, CudaQueue& queue) {
  const int n = static_cast<int>(job.n);
  float* degrees = queue.take<float>(job.batch * job.n);
  const bool binary = job.params.graph == PATCHCUT_GRAPH_BINARY;
  const StoredWeights<T> graph{weights, degrees, n, n, floor, binary};
  const int64_t k = job.k;
  const KrylovSearch search = job.search(false);
  const KrylovSpace space = take_space(job.batch, job.n, search, queue);
  const Vectors found{queue.take<float>(job.batch * k * job.n), k * job.n, nullptr};
  const Vectors products{queue.take<float>(job.batch * k * job.n), k * job.n, nullptr};
  const unsigned items = static_cast<unsigned>(job.batch);
  launch(queue, degrees_kernel<T>, dim3(static_cast<unsigned>(ceil_div(n, kKrylovWarps)), items), kThreads,
         graph, degrees);
  launch(queue, nodes_kernel, dim3(1, items), kThreads, n, degrees, space.basis());
  const auto multiply_by = [&](const Vectors& x, int64_t count, const Vectors& out) {
    multiply(graph, x, count, out, job.n, job.batch, queue);
  };
  largest_eigenpairs(space, search, take_starts(job, degrees, queue), multiply_by, found, queue);
  multiply_by(found, k, products);
  const dim3 each(static_cast<unsigned>(k), items);
  launch(queue, quotient_kernel, each, kThreads, space, found, products);
  launch(queue, finish_kernel, each, kThreads, space, degrees, found, products,
         Results{job.eigenvalues, job.vectors, job.residuals, job.products});
}

// ---- cosines that are not stored ----

constexpr int kStripNodes = 128;
constexpr int kMaxStrips = 1024;

struct Gathering {
  FeatureRows rows;
  Vectors weights;  // [vectors, n]; null: 1
  int64_t count;    // vectors * columns
  int strip_nodes;
  int strips;
  float* sums;  // [batch, strips, count]
};

__device__ __forceinline__ int64_t index_of_thread() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

// sums[strip, v, j] = sum over the nodes i of strip blockIdx.z of weights[v, i] entry(i, j); one thread: one
// v and j.
__global__ void __launch_bounds__(kThreads) gather_kernel(Gathering of, Vectors out) {
  const int64_t at = index_of_thread();
  if (at >= of.count || out.has_ended()) return;
  const int j = static_cast<int>(at % of.rows.columns);
  const int64_t v = at / of.rows.columns;
  const float* weights = of.weights.data == nullptr ? nullptr : of.weights.of_item() + v * of.rows.rows;
  const int first = static_cast<int>(blockIdx.z) * of.strip_nodes;
  const int nodes = min(of.strip_nodes, of.rows.rows - first);
  float total = 0.0f;
  for (int i = first; i < first + nodes; ++i) {
    total += of.rows.entry(i, j) * (weights == nullptr ? 1.0f : weights[i]);
  }
  of.sums[(static_cast<int64_t>(blockIdx.y) * of.strips + blockIdx.z) * of.count + at] = total;
}

__global__ void __launch_bounds__(kThreads) add_strips_kernel(Gathering of, Vectors out) {
  const int64_t at = index_of_thread();
  if (at >= of.count || out.has_ended()) return;
  const float* sums = of.sums + static_cast<int64_t>(blockIdx.y) * of.strips * of.count + at;
  float total = 0.0f;
  for (int s = 0; s < of.strips; ++s) total += sums[s * of.count];
  out.of_item()[at] = total;
}

// One block an item: degrees become D^-1, the known vector gets unit length.
__global__ void __launch_bounds__(kThreads) features_kernel(int n, int size, float* degrees, Vectors known) {
  float* of_item = degrees + static_cast<int64_t>(blockIdx.y) * n;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    of_item[i] = of_item[i] > 0.0f ? 1.0f / of_item[i] : 0.0f;
  }
  float* vector = known.of_item();
  const float squares = dot_block(vector, vector, size);
  const float scale = squares > 0.0f ? 1.0f / sqrtf(squares) : 0.0f;
  for (int j = static_cast<int>(threadIdx.x); j < size; j += kThreads) vector[j] *= scale;
}

// One block: products of one found vector become its residual.
__global__ void __launch_bounds__(kThreads)
    residual_kernel(KrylovSpace space, Vectors found, Vectors products) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * space.size;
  const float value = value_of(space, static_cast<int>(blockIdx.x));
  leave_residual(space.size, space.basis().of_item(), value, found.of_item() + at, products.of_item() + at);
}

// One block: one vector of one item; `again` are products of the graph with its residual.
__global__ void __launch_bounds__(kThreads)
    finish_nodes_kernel(KrylovSpace space, int n, Vectors residuals, Vectors again, Vectors nodes,
                        Results results) {
  constexpr float kIndistinct = 1e-6f;  // of the largest eigenvalue: smaller ones are rounding errors
  const Cut cut{static_cast<int64_t>(blockIdx.y), static_cast<int>(blockIdx.x), space.k};
  const int64_t at = static_cast<int64_t>(cut.c) * space.size;
  const float value = value_of(space, cut.c);
  const bool distinct = value > kIndistinct * fmaxf(1.0f, space.values[cut.item * space.k]);
  const float squares = dot_block(residuals.of_item() + at, again.of_item() + at, space.size);
  const float scale = distinct ? 1.0f / sqrtf(value) : 0.0f;
  if (threadIdx.x == 0) {
    results.store(space, cut, distinct ? 1.0f - value : 1.0f, sqrtf(fmaxf(squares, 0.0f)) * scale);
  }
  store_vector(cut, n, nodes.of_item() + static_cast<int64_t>(cut.c) * n, scale, results.vectors);
}

// F' D^-1 F, of which only F is in memory.
class FeatureGraph {
 public:
  // Its products are of up to `max_vectors` vectors.
  FeatureGraph(const Job& job, const UnitRows& unit, int64_t max_vectors, CudaQueue& queue)
      : n_(job.n), batch_(job.batch), queue_(queue) {
    const float offset = job.params.offset;
    const int n = static_cast<int>(n_);
    const int d = static_cast<int>(job.d);
    const int strip_nodes = std::max(kStripNodes, ceil_div(n, kMaxStrips));
    const int strips = ceil_div(n, strip_nodes);
    rows_ = {unit.data,        nullptr, n, d + (offset > 0.0f ? 1 : 0), d, static_cast<int>(unit.stride),
             std::sqrt(offset)};
    weights_ = {queue.take<float>(batch_ * max_vectors * n_), max_vectors * n_, nullptr};
    gathering_ = {rows_,       {},     0,
                  strip_nodes, strips, queue.take<float>(batch_ * strips * max_vectors * size())};
  }

  int size() const { return rows_.columns; }

  // The known vector F' 1, of unit length; and D.
  void weigh(const Vectors& known) {
    float* degrees = queue_.take<float>(batch_ * n_);
    from_nodes({}, 1, known);
    to_nodes(known, 1, {degrees, n_, nullptr});
    launch(queue_, features_kernel, dim3(1, static_cast<unsigned>(batch_)), kThreads, rows_.rows, size(),
           degrees, known);
    rows_.inverse_degrees = degrees;
  }

  // D^-1 F x, or F x before it was weighed.
  void to_nodes(const Vectors& x, int64_t count, const Vectors& out) const {
    patchcut::multiply(rows_, x, count, out, n_, batch_, queue_);
  }

  void multiply(const Vectors& x, int64_t count, const Vectors& products) const {
    to_nodes(x, count, weights_);
    from_nodes(weights_, count, products);
  }

  // F' weights; of no weights: F' 1.
  void from_nodes(const Vectors& weights, int64_t vectors, const Vectors& out) const {
    Gathering gathering = gathering_;
    gathering.weights = weights;
    gathering.count = vectors * size();
    const unsigned blocks = static_cast<unsigned>(ceil_div<int64_t>(gathering.count, kThreads));
    const unsigned items = static_cast<unsigned>(batch_);
    const unsigned strips = static_cast<unsigned>(gathering.strips);
    launch(queue_, gather_kernel, dim3(blocks, items, strips), kThreads, gathering, out);
    launch(queue_, add_strips_kernel, dim3(blocks, items), kThreads, gathering, out);
  }

 private:
  int64_t n_;
  int64_t batch_;
  CudaQueue& queue_;
  FeatureRows rows_ = {};
  Vectors weights_ = {};
  Gathering gathering_ = {};
};

void cut_cosine(const Job& job, const UnitRows& unit, CudaQueue& queue) {
  const int64_t k = job.k;
  const KrylovSearch search = job.search(true);
  FeatureGraph graph(job, unit, vectors_of_block(search), queue);
  const KrylovSpace space = take_space(job.batch, graph.size(), search, queue);
  const auto take_vectors = [&](int64_t length) {
    return Vectors{queue.take<float>(job.batch * k * length), k * length, nullptr};
  };
  const Vectors found = take_vectors(graph.size());
  const Vectors products = take_vectors(graph.size());
  const Vectors again = take_vectors(graph.size());
  const Vectors nodes = take_vectors(job.n);
  graph.weigh(space.basis());
  Vectors start = take_starts(job, nullptr, queue);
  if (search.started) {
    const Vectors nodes_start = start;
    start = take_vectors(graph.size());
    graph.from_nodes(nodes_start, k, start);
  }
  largest_eigenpairs(
      space, search, start,
      [&](const Vectors& x, int64_t count, const Vectors& out) { graph.multiply(x, count, out); }, found,
      queue);
  const dim3 each(static_cast<unsigned>(k), static_cast<unsigned>(job.batch));
  graph.multiply(found, k, products);
  launch(queue, quotient_kernel, each, kThreads, space, found, products);
  launch(queue, residual_kernel, each, kThreads, space, found, products);
  graph.multiply(products, k, again);
  graph.to_nodes(found, k, nodes);
  launch(queue, finish_nodes_kernel, each, kThreads, space, static_cast<int>(job.n), products, again, nodes,
         Results{job.eigenvalues, job.vectors, job.residuals, job.products});
}

}  // namespace

void ncut_cuda(const void* features, int32_t dtype, int64_t batch, int64_t n, int64_t d, int64_t k,
               const float* start, const patchcut_ncut_params& params, float* eigenvalues, float* vectors,
               float* residuals, int32_t* products, CudaQueue& queue) {
  if (batch == 0) return;
  const Job job{batch, n, d, k, start, params, eigenvalues, vectors, residuals, products};
  if (params.graph == PATCHCUT_GRAPH_AFFINITY) {
    return with_float_type(dtype, [&](auto zero) {
      cut_stored(job, static_cast<const decltype(zero)*>(features), 0.0f, queue);
    });
  }
  if (params.graph == PATCHCUT_GRAPH_COSINE) {
    return cut_cosine(job, unit_rows(features, dtype, batch * n, d, true, queue), queue);
  }
  patchcut_affinity_params settings = PATCHCUT_AFFINITY_DEFAULTS;
  settings.threshold = params.threshold;
  float* weights = queue.take<float>(batch * n * n);
  affinity_cuda(features, dtype, batch, n, d, settings, weights, PATCHCUT_FLOAT32, nullptr, queue);
  cut_stored<float>(job, weights, params.floor, queue);
}

}  // namespace patchcut
