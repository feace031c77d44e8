// The way back of gnn_fit, from the loss to new weights.
#pragma once

#include "fit/gnn_fit.cuh"

namespace patchcut {
namespace {

// One warp: the loss's gradient by a node's logits.
__device__ void slope_logits(const Fit& fit, int64_t item, int64_t node, float* out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float* s = fit.assignment + node * fit.k;
  const float* mix = fit.mix + item * fit.k * fit.k;
  const float2 slope = fit.slope[item];
  const float own = slope.y * fit.degrees[node];
  float mean = 0.0f;
  for (int c = lane; c < fit.k; c += kWarp) {
    float value = slope.x * fit.near[node * fit.k + c];
    if (fit.ncut) {
      value += own * s[c];
      for (int e = 0; e < fit.k; ++e) value += s[e] * mix[e * fit.k + c];
    }
    out[c] = value;
    mean += s[c] * value;
  }
  mean = reduce_warp(mean, Sum());
  for (int c = lane; c < fit.k; c += kWarp) out[c] = s[c] * (out[c] - mean);
}

// One warp: the chain rule of one node, through softmax, logits, dropout and ELU to the hidden layer.
__global__ void __launch_bounds__(kThreads) return_kernel(Fit fit, int step) {
  const int i = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (i >= fit.n) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t item = blockIdx.y;
  if (fit.has_ended(item)) return;
  const int64_t node = item * fit.n + i;
  float* to_logits = fit.logits.delta + node * fit.logits.delta_stride;
  slope_logits(fit, item, node, to_logits);
  __syncwarp();
  const float* weights = fit.weights + item * fit.parameters + fit.logits.first;
  const RandomStream random = dropout_stream(fit, step);
  for (int j = lane; j < fit.width; j += kWarp) {
    float sum = 0.0f;
    for (int c = 0; c < fit.k; ++c) sum += to_logits[c] * weights[j * fit.k + c];
    sum *= kept(fit, random, static_cast<int64_t>(i) * fit.width + j) *
           elu_slope(fit.units[node * fit.width + j]);
    fit.hidden.delta[node * fit.hidden.delta_stride + j] = sum;
  }
}

// One block: a tile of what comes back to the graph layer, delta hidden^T through its ELU.
__global__ void __launch_bounds__(kThreads) nodes_kernel(Fit fit) {
  const int64_t item = blockIdx.z;
  if (fit.has_ended(item)) return;
  const Layer& hidden = fit.hidden;
  const DepthMajor<float> weights = weights_of(fit, hidden, item);
  const RowMajor<float> delta{hidden.delta + item * fit.n * hidden.delta_stride, fit.n, hidden.outputs,
                              hidden.delta_stride, true};
  const RowMajor<float> transposed{weights.data, hidden.inputs - 1, hidden.outputs, hidden.outputs,
                                   weights.aligned};
  const int first_row = static_cast<int>(blockIdx.x) * Tile::kRows;
  const int first_col = static_cast<int>(blockIdx.y) * Tile::kCols;
  float total[Tile::kThreadRows][Tile::kThreadCols];
  multiply_tile<Tile>(delta, transposed, first_row, first_col, total);
  for_entries(total, first_row, first_col, fit.n, hidden.inputs - 1, [&](int row, int col, float value) {
    const int64_t node = item * fit.n + row;
    fit.graph.delta[node * fit.graph.delta_stride + col] =
        value * elu_slope(hidden.in[node * hidden.in_stride + col]);
  });
}

// Tiles of a layer's gradient.
__host__ __device__ inline int gradient_tiles(const Layer& layer) {
  return ceil_div(layer.inputs, Tile::kRows) * ceil_div(layer.outputs, Tile::kCols);
}

// One block: what kGradientDepth nodes add to a tile of a layer's gradient, [in, 1]^T delta.
__global__ void __launch_bounds__(kThreads) gradient_kernel(Fit fit) {
  const int64_t item = blockIdx.z;
  if (fit.has_ended(item)) return;
  int tile = static_cast<int>(blockIdx.x);
  Layer layer = fit.graph;
  if (tile >= gradient_tiles(layer)) {
    tile -= gradient_tiles(layer);
    layer = fit.hidden;
  }
  if (tile >= gradient_tiles(layer)) {
    tile -= gradient_tiles(layer);
    layer = fit.logits;
  }
  const int first = static_cast<int>(blockIdx.y) * kGradientDepth;
  const int depth = min(kGradientDepth, fit.n - first);
  const int64_t node = item * fit.n + first;
  const DepthMajor<float> in{layer.in + node * layer.in_stride, layer.inputs, depth, layer.in_stride, true};
  const DepthMajor<float> delta{layer.delta + node * layer.delta_stride, layer.outputs, depth,
                                layer.delta_stride, true};
  const int side = ceil_div(layer.outputs, Tile::kCols);
  const int first_row = tile / side * Tile::kRows;
  const int first_col = tile % side * Tile::kCols;
  float total[Tile::kThreadRows][Tile::kThreadCols];
  multiply_tile<Tile>(in, delta, first_row, first_col, total);
  const int64_t network = static_cast<int64_t>(blockIdx.y) * gridDim.z + item;
  float* gradient = fit.gradients + network * fit.parameters + layer.first;
  for_entries(total, first_row, first_col, layer.inputs, layer.outputs,
              [&](int row, int col, float value) { gradient[row * layer.outputs + col] = value; });
}

// One thread: one step of one parameter.
__global__ void __launch_bounds__(kThreads) adamw_kernel(Fit fit, AdamWStep step, int64_t count) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= count || fit.has_ended(at / fit.parameters)) return;
  float gradient = 0.0f;
  for (int chunk = 0; chunk < fit.chunks; ++chunk) gradient += fit.gradients[chunk * count + at];
  const float mean = fit.mean[at] = 0.9f * fit.mean[at] + 0.1f * gradient;
  const float square = fit.square[at] = 0.999f * fit.square[at] + 0.001f * gradient * gradient;
  fit.weights[at] =
      fit.weights[at] * step.decay - step.step_size * mean / (sqrtf(square) * step.root_scale + 1e-8f);
}

// One thread: one parameter of a network, without what rounds it up.
__global__ void __launch_bounds__(kThreads) give_kernel(Fit fit, int count, float* fitted) {
  const int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (at >= count) return;
  const int64_t item = blockIdx.y;
  fitted[item * count + at] = fit.weights[item * fit.parameters + at];
}

}  // namespace
}  // namespace patchcut
