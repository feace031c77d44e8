// A pass of gnn_fit, from propagated features to the loss.
#pragma once

#include "fit/gnn_fit.cuh"

namespace patchcut {
namespace {

// One block: a tile of elu([in, 1] weights), which goes into the next layer; where `drops`, of the hidden
// layer, through dropout.
__global__ void __launch_bounds__(kThreads)
    layer_kernel(Fit fit, Layer layer, Layer next, bool drops, int step) {
  const int64_t item = blockIdx.z;
  if (fit.has_ended(item)) return;
  const RowMajor<float> in{layer.in + item * fit.n * layer.in_stride, fit.n, layer.inputs, layer.in_stride,
                           true};
  const int first_row = static_cast<int>(blockIdx.x) * Tile::kRows;
  const int first_col = static_cast<int>(blockIdx.y) * Tile::kCols;
  float total[Tile::kThreadRows][Tile::kThreadCols];
  multiply_tile<Tile>(in, weights_of(fit, layer, item), first_row, first_col, total);
  const RandomStream random = dropout_stream(fit, step);
  for_entries(total, first_row, first_col, fit.n, layer.outputs, [&](int row, int col, float value) {
    const int64_t node = item * fit.n + row;
    float unit = elu(value);
    if (drops) {
      fit.units[node * fit.width + col] = unit;
      unit *= kept(fit, random, static_cast<int64_t>(row) * fit.width + col);
    }
    next.in[node * next.in_stride + col] = unit;
  });
}

// One warp: the assignment of node i of an item.
__device__ void assign_node(const Fit& fit, int64_t item, int i) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t node = item * fit.n + i;
  const float* in = fit.logits.in + node * fit.logits.in_stride;
  const float* weights = fit.weights + item * fit.parameters + fit.logits.first;
  float* s = fit.assignment + node * fit.k;
  float largest = -INFINITY;
  for (int c = lane; c < fit.k; c += kWarp) {
    float logit = 0.0f;
    for (int p = 0; p < fit.logits.inputs; ++p) logit += in[p] * weights[p * fit.k + c];
    s[c] = logit;
    largest = fmaxf(largest, logit);
  }
  largest = reduce_warp(largest, Max());
  float total = 0.0f;
  for (int c = lane; c < fit.k; c += kWarp) total += s[c] = expf(s[c] - largest);
  const float scale = 1.0f / reduce_warp(total, Sum());
  float squares = 0.0f;
  for (int c = lane; c < fit.k; c += kWarp) {
    s[c] *= scale;
    fit.columns[(item * fit.k + c) * fit.n + i] = s[c];
    squares += s[c] * s[c];
  }
  squares = reduce_warp(squares, Sum());
  if (lane == 0) fit.volumes[node] = fit.degrees[node] * squares;
}

// One block: the assignment of kAssignRows nodes, a warp each, and what they add to S^T S.
__global__ void __launch_bounds__(kThreads) assign_kernel(Fit fit) {
  const int64_t item = blockIdx.y;
  if (fit.has_ended(item)) return;
  const int first = static_cast<int>(blockIdx.x) * kAssignRows;
  const int end = min(first + kAssignRows, fit.n);
  for (int i = first + static_cast<int>(threadIdx.x) / kWarp; i < end; i += kWarps) assign_node(fit, item, i);
  if (!fit.ncut) return;
  __syncthreads();
  const float* assignment = fit.assignment + item * fit.n * fit.k;
  float* gram = fit.grams + (item * fit.gram_blocks + blockIdx.x) * fit.k * fit.k;
  for (int e = static_cast<int>(threadIdx.x); e < fit.k * fit.k; e += kThreads) {
    float sum = 0.0f;
    for (int i = first; i < end; ++i)
      sum += assignment[i * fit.k + e / fit.k] * assignment[i * fit.k + e % fit.k];
    gram[e] = sum;
  }
}

// One warp: a node's row of W S, kColumns columns at a time, and what it adds to tr(S^T W S).
template <class T>
__global__ void __launch_bounds__(kThreads) gather_kernel(Fit fit, const T* affinity) {
  constexpr int kColumns = 4;
  const int i = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (i >= fit.n) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t item = blockIdx.y;
  if (fit.has_ended(item)) return;
  const int64_t node = item * fit.n + i;
  const T* row = affinity + node * fit.n;
  const float* columns = fit.columns + item * fit.k * fit.n;
  float inside = 0.0f;
  for (int c = 0; c < fit.k; c += kColumns) {
    float near[kColumns] = {};
    for (int j = lane; j < fit.n; j += kWarp) {
      const float edge = to_float(row[j]);
#pragma unroll
      for (int e = 0; e < kColumns; ++e)
        near[e] += c + e < fit.k ? edge * columns[(c + e) * fit.n + j] : 0.0f;
    }
#pragma unroll
    for (int e = 0; e < kColumns; ++e) {
      near[e] = reduce_warp(near[e], Sum());
      if (c + e >= fit.k) continue;
      inside += near[e] * fit.assignment[node * fit.k + c + e];
      if (lane == 0) fit.near[node * fit.k + c + e] = near[e];
    }
  }
  if (lane == 0) fit.insides[node] = inside;
}

// The sum of values(i) for i < count, in every thread of the block.
template <class Values>
__device__ double sum_of_block(int count, const Values& values) {
  double sum = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) sum += values(i);
  return reduce_block<kThreads>(sum, Sum());
}

// | G / |G| - I / sqrt(k) | for G = S^T S; its gradient by S is S mix. The whole block calls it.
__device__ double measure_balance(const Fit& fit, int64_t item) {
  const int count = fit.k * fit.k;
  const float* grams = fit.grams + item * fit.gram_blocks * count;
  double* gram = fit.gram + item * count;
  const double squares = sum_of_block(count, [&](int e) {
    double sum = 0.0;
    for (int block = 0; block < fit.gram_blocks; ++block)
      sum += static_cast<double>(grams[block * count + e]);
    gram[e] = sum;
    return sum * sum;
  });
  const double size = sqrt(squares);
  const double even = 1.0 / sqrt(static_cast<double>(fit.k));
  // Each thread reads the entries that it has written.
  const auto excess = [&](int e) { return gram[e] / size - (e % (fit.k + 1) == 0 ? even : 0.0); };
  const double balance = sqrt(sum_of_block(count, [&](int e) { return excess(e) * excess(e); }));
  const double overlap = sum_of_block(count, [&](int e) { return excess(e) * gram[e]; });
  for (int e = static_cast<int>(threadIdx.x); e < count; e += kThreads) {
    const double slope = 2.0 * (excess(e) - overlap / squares * gram[e]) / (balance * size);
    fit.mix[item * count + e] = balance > 0.0 ? static_cast<float>(slope) : 0.0f;
  }
  return balance;
}

// One block: the loss of an item in pass `step`, and its slope; whether it ends. One that has ended keeps its
// last loss.
__global__ void __launch_bounds__(kThreads) loss_kernel(Fit fit, float* losses, int step, int steps) {
  const int64_t item = blockIdx.x;
  float* own = losses + item * steps + step;
  if (fit.has_ended(item)) {
    if (threadIdx.x == 0) own[0] = own[-1];
    return;
  }
  const double inside =
      sum_of_block(fit.n, [&](int i) { return static_cast<double>(fit.insides[item * fit.n + i]); });
  double loss = -inside;
  float2 slope = make_float2(-2.0f, 0.0f);
  if (fit.ncut) {
    const double volume =
        sum_of_block(fit.n, [&](int i) { return static_cast<double>(fit.volumes[item * fit.n + i]); });
    loss = measure_balance(fit, item) - (volume > 0.0 ? inside / volume : 0.0);
    slope = volume > 0.0 ? make_float2(static_cast<float>(-2.0 / volume),
                                       static_cast<float>(2.0 * inside / volume / volume))
                         : make_float2(0.0f, 0.0f);
  }
  if (threadIdx.x != 0) return;
  fit.slope[item] = slope;
  own[0] = static_cast<float>(loss);
  if (fit.ended != nullptr && step > 0 && improves_little(fit.tolerance, own[-1], own[0]))
    fit.ended[item] = 1;
}

}  // namespace
}  // namespace patchcut
