// Before the passes: the weights (start_kernel), degrees (degrees_kernel) and propagated features
// (propagate_kernel), which all passes share. A pass is five kernels: layer_kernel twice, assign_kernel,
// gather_kernel and loss_kernel; the way back from it four: return_kernel, nodes_kernel, gradient_kernel and
// adamw_kernel. An item that has ended is left alone by all of them. In the end give_kernel copies weights.
// No sum depends on the order in which blocks run.
#include <climits>

#include "cuda/unit_rows.cuh"
#include "fit/gnn_fit.cuh"
#include "fit/gnn_fit.h"
#include "fit/gnn_fit_pass.cuh"
#include "fit/gnn_fit_return.cuh"

namespace patchcut {
namespace {

struct StartLayer {
  int first;
  int inputs;  // without the column of ones
  int outputs;
  const float* weight;  // null: drawn
  const float* bias;
  WeightBounds bounds;
};

struct Start {
  StartLayer layers[kFitLayers];
  int parameters;  // of a network
  uint64_t seed;
};

// One thread: one parameter.
__global__ void __launch_bounds__(kThreads)
    start_kernel(Start start, int stride, float* weights, float* mean, float* square) {
  const int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (at >= start.parameters) return;
  int l = kFitLayers - 1;
  while (at < start.layers[l].first) --l;
  const StartLayer& layer = start.layers[l];
  const int count = layer.inputs * layer.outputs;
  const bool is_bias = at - layer.first >= count;
  const int index = at - layer.first - (is_bias ? count : 0);
  float value;
  if (layer.weight != nullptr) {
    value = is_bias ? layer.bias[index] : layer.weight[index];
  } else {
    const RandomStream random(start.seed, 2 * static_cast<uint64_t>(l) + (is_bias ? 1 : 0));
    value = (2.0f * random.uniform(static_cast<uint64_t>(index)) - 1.0f) *
            (is_bias ? layer.bounds.bias : layer.bounds.weight);
  }
  const int64_t parameter = static_cast<int64_t>(blockIdx.y) * stride + at;
  weights[parameter] = value;
  mean[parameter] = 0.0f;
  square[parameter] = 0.0f;
}

// One warp: degree and scale of one node, and the ones in its rows.
template <class T>
__global__ void __launch_bounds__(kThreads) degrees_kernel(Fit fit, const T* affinity) {
  const int i = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (i >= fit.n) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t node = static_cast<int64_t>(blockIdx.y) * fit.n + i;
  const T* row = affinity + node * fit.n;
  float sum = 0.0f;
  for (int j = lane; j < fit.n; j += kWarp) sum += fmaxf(to_float(row[j]), 0.0f);
  sum = reduce_warp(sum, Sum());
  if (lane != 0) return;
  fit.degrees[node] = sum;
  fit.scales[node] = 1.0f / sqrtf(sum + (to_float(row[i]) > 0.0f ? 0.0f : 1.0f));
  const auto put_one = [node](const Layer& layer) {
    layer.in[node * layer.in_stride + layer.inputs - 1] = 1.0f;
  };
  put_one(fit.graph);
  put_one(fit.hidden);
  put_one(fit.logits);
}

// Rows of the affinity's positive part, each entry scaled by its column; 1 for a node without an edge to
// itself.
template <class T>
struct EdgeRows {
  static constexpr bool kAlongDepth = true;
  const T* data;        // [rows, rows]
  const float* scales;  // [rows]
  int rows;
  int depth;
  bool aligned;

  __device__ __forceinline__ float scaled(float edge, int row, int col) const {
    if (row >= rows || col >= rows) return 0.0f;
    const float positive = fmaxf(edge, 0.0f);
    return (row == col && positive == 0.0f ? 1.0f : positive) * scales[col];
  }
  __device__ __forceinline__ float4 load(int row, int p) const {
    const float4 edges =
        load_four(data + static_cast<int64_t>(row) * rows + p, row < rows ? depth - p : 0, aligned);
    return make_float4(scaled(edges.x, row, p), scaled(edges.y, row, p + 1), scaled(edges.z, row, p + 2),
                       scaled(edges.w, row, p + 3));
  }
};

// One block: a tile of Ahat features.
template <class T>
__global__ void __launch_bounds__(kThreads)
    propagate_kernel(Fit fit, const T* affinity, bool aligned, const float* features, int stride) {
  const int64_t item = blockIdx.z;
  const float* scales = fit.scales + item * fit.n;
  const EdgeRows<T> edges{affinity + item * fit.n * fit.n, scales, fit.n, fit.n, aligned};
  const DepthMajor<float> rows{features + item * fit.n * stride, fit.d, fit.n, stride, true};
  const int first_row = static_cast<int>(blockIdx.x) * Tile::kRows;
  const int first_col = static_cast<int>(blockIdx.y) * Tile::kCols;
  float total[Tile::kThreadRows][Tile::kThreadCols];
  multiply_tile<Tile>(edges, rows, first_row, first_col, total);
  float* out = fit.graph.in + item * fit.n * fit.graph.in_stride;
  for_entries(total, first_row, first_col, fit.n, fit.d, [&](int row, int col, float value) {
    out[static_cast<int64_t>(row) * fit.graph.in_stride + col] = value * scales[row];
  });
}

unsigned blocks_of(int64_t count, int64_t block) { return static_cast<unsigned>(ceil_div(count, block)); }

dim3 tiles_of(int64_t rows, int64_t cols, int64_t batch) {
  return dim3(blocks_of(rows, Tile::kRows), blocks_of(cols, Tile::kCols), static_cast<unsigned>(batch));
}

Layer take_layer(CudaQueue& queue, int64_t nodes, int64_t inputs, int64_t outputs, int64_t first) {
  const int64_t in_stride = ceil_div<int64_t>(inputs + 1, 4) * 4;
  const int64_t delta_stride = ceil_div<int64_t>(outputs, 4) * 4;
  return {
      static_cast<int>(inputs + 1),           static_cast<int>(outputs), static_cast<int>(in_stride),
      static_cast<int>(delta_stride),         static_cast<int>(first),   queue.take<float>(nodes * in_stride),
      queue.take<float>(nodes * delta_stride)};
}

struct Job {
  int64_t batch;
  int64_t n;
  int64_t d;
  int64_t k;
  const patchcut_gnn_fit_params& params;
};

Fit take_fit(const Job& job, float* assignment, CudaQueue& queue) {
  const patchcut_gnn_fit_params& params = job.params;
  const int64_t nodes = job.batch * job.n;
  const int64_t hidden_first = (job.d + 1) * params.graph_width;
  const int64_t logits_first = hidden_first + (params.graph_width + 1) * params.hidden_width;
  const int64_t parameters = ceil_div<int64_t>(fit_parameters(job.d, job.k, params), 4) * 4;
  const int64_t chunks = ceil_div<int64_t>(job.n, kGradientDepth);
  const int64_t gram_blocks = ceil_div<int64_t>(job.n, kAssignRows);
  for (const int64_t size :
       {parameters, job.n * job.k, job.n * params.hidden_width, job.k * job.k, params.steps}) {
    require(size <= INT_MAX, queue.op(), "sizes of one item must stay below 2^31 on CUDA");
  }
  Fit fit{};
  fit.n = static_cast<int>(job.n);
  fit.d = static_cast<int>(job.d);
  fit.k = static_cast<int>(job.k);
  fit.width = static_cast<int>(params.hidden_width);
  fit.parameters = static_cast<int>(parameters);
  fit.chunks = static_cast<int>(chunks);
  fit.gram_blocks = static_cast<int>(gram_blocks);
  fit.ncut = params.loss == PATCHCUT_NCUT;
  fit.dropout = params.dropout;
  fit.seed = params.seed;
  fit.graph = take_layer(queue, nodes, job.d, params.graph_width, 0);
  fit.hidden = take_layer(queue, nodes, params.graph_width, params.hidden_width, hidden_first);
  fit.logits = take_layer(queue, nodes, params.hidden_width, job.k, logits_first);
  fit.weights = queue.take<float>(job.batch * parameters);
  fit.mean = queue.take<float>(job.batch * parameters);
  fit.square = queue.take<float>(job.batch * parameters);
  fit.gradients = queue.take<float>(chunks * job.batch * parameters);
  fit.degrees = queue.take<float>(nodes);
  fit.scales = queue.take<float>(nodes);
  fit.units = queue.take<float>(nodes * params.hidden_width);
  fit.columns = queue.take<float>(nodes * job.k);
  fit.near = queue.take<float>(nodes * job.k);
  fit.volumes = queue.take<float>(nodes);
  fit.insides = queue.take<float>(nodes);
  fit.grams = queue.take<float>(job.batch * gram_blocks * job.k * job.k);
  fit.gram = queue.take<double>(job.batch * job.k * job.k);
  fit.mix = queue.take<float>(job.batch * job.k * job.k);
  fit.slope = queue.take<float2>(job.batch);
  fit.assignment = assignment;
  fit.tolerance = params.tolerance;
  fit.ended = params.tolerance > 0.0f ? queue.take<int>(job.batch) : nullptr;
  return fit;
}

void start_weights(const Job& job, const Fit& fit, const patchcut_gnn_fit_weights& weights,
                   CudaQueue& queue) {
  const auto layer = [](int index, const Layer& of, const float* weight, const float* bias) {
    return StartLayer{of.first, of.inputs - 1, of.outputs,
                      weight,   bias,          weight_bounds(index, of.inputs - 1, of.outputs)};
  };
  const int count = fit.logits.first + fit.logits.inputs * fit.logits.outputs;
  const Start start{{layer(0, fit.graph, weights.theta, weights.theta_bias),
                     layer(1, fit.hidden, weights.hidden, weights.hidden_bias),
                     layer(2, fit.logits, weights.logits, weights.logits_bias)},
                    count,
                    fit.seed};
  // The room between two networks is never written, yet AdamW moves it.
  for (float* values : {fit.weights, fit.mean, fit.square}) queue.clear(values, job.batch * fit.parameters);
  queue.clear(fit.gradients, fit.chunks * job.batch * fit.parameters);
  if (fit.ended != nullptr) queue.clear(fit.ended, job.batch);
  launch(queue, start_kernel, dim3(blocks_of(count, kThreads), static_cast<unsigned>(job.batch)), kThreads,
         start, fit.parameters, fit.weights, fit.mean, fit.square);
}

template <class T>
void propagate(const Job& job, const Fit& fit, const T* affinity, const UnitRows& features,
               CudaQueue& queue) {
  const dim3 warps(blocks_of(job.n, kWarps), static_cast<unsigned>(job.batch));
  launch(queue, degrees_kernel<T>, warps, kThreads, fit, affinity);
  launch(queue, propagate_kernel<T>, tiles_of(job.n, job.d, job.batch), kThreads, fit, affinity,
         rows_are_aligned(affinity, job.n), features.data, static_cast<int>(features.stride));
}

template <class T>
void pass(const Job& job, const Fit& fit, const T* affinity, int step, float* losses, CudaQueue& queue) {
  const dim3 warps(blocks_of(job.n, kWarps), static_cast<unsigned>(job.batch));
  launch(queue, layer_kernel, tiles_of(job.n, fit.graph.outputs, job.batch), kThreads, fit, fit.graph,
         fit.hidden, false, step);
  launch(queue, layer_kernel, tiles_of(job.n, fit.hidden.outputs, job.batch), kThreads, fit, fit.hidden,
         fit.logits, true, step);
  launch(queue, assign_kernel, dim3(static_cast<unsigned>(fit.gram_blocks), static_cast<unsigned>(job.batch)),
         kThreads, fit);
  launch(queue, gather_kernel<T>, warps, kThreads, fit, affinity);
  launch(queue, loss_kernel, static_cast<unsigned>(job.batch), kThreads, fit, losses, step,
         static_cast<int>(job.params.steps));
}

void update(const Job& job, const Fit& fit, int step, CudaQueue& queue) {
  const dim3 warps(blocks_of(job.n, kWarps), static_cast<unsigned>(job.batch));
  launch(queue, return_kernel, warps, kThreads, fit, step);
  launch(queue, nodes_kernel, tiles_of(job.n, fit.graph.outputs, job.batch), kThreads, fit);
  const int tiles = gradient_tiles(fit.graph) + gradient_tiles(fit.hidden) + gradient_tiles(fit.logits);
  launch(
      queue, gradient_kernel,
      dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(fit.chunks), static_cast<unsigned>(job.batch)),
      kThreads, fit);
  const int64_t count = job.batch * fit.parameters;
  launch(queue, adamw_kernel, blocks_of(count, kThreads), kThreads, fit,
         adamw_step(job.params.learning_rate, step), count);
}

}  // namespace

void gnn_fit_cuda(const void* features, int32_t dtype, const void* affinity, int32_t affinity_dtype,
                  int64_t batch, int64_t n, int64_t d, int64_t k, const patchcut_gnn_fit_params& params,
                  const patchcut_gnn_fit_weights* weights, float* assignment, float* losses, float* fitted,
                  CudaQueue& queue) {
  if (batch == 0) return;
  const Job job{batch, n, d, k, params};
  const Fit fit = take_fit(job, assignment, queue);
  const UnitRows rows = unit_rows(features, dtype, batch * n, d, false, queue);
  start_weights(job, fit, weights == nullptr ? patchcut_gnn_fit_weights{} : *weights, queue);
  with_float_type(affinity_dtype, [&](auto zero) {
    const auto* edges = static_cast<const decltype(zero)*>(affinity);
    propagate(job, fit, edges, rows, queue);
    for (int step = 0; step < params.steps; ++step) {
      pass(job, fit, edges, step, losses, queue);
      if (step + 1 < params.steps) update(job, fit, step, queue);
    }
  });
  if (fitted == nullptr) return;
  const int count = static_cast<int>(fit_parameters(d, k, params));
  launch(queue, give_kernel, dim3(blocks_of(count, kThreads), static_cast<unsigned>(batch)), kThreads, fit,
         count, fitted);
}

}  // namespace patchcut
