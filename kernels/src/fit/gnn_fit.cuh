// What the kernels of gnn_fit share. Networks lie one after the other, [batch, parameters]: of each layer a
// matrix [inputs, outputs] whose last row is the bias, since the last column of what goes in is 1.
#pragma once

#include "cpu/random.h"
#include "cuda/gemm.cuh"
#include "cuda/launch.cuh"
#include "fit/fit_settings.h"

namespace patchcut {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
// Small tiles: a fit is narrow, and latency counts before throughput.
using Tile = GemmTile<2, 2>;
// Nodes whose part of a gradient one block adds up.
constexpr int kGradientDepth = 256;
// Rows of the assignment that one block makes, and adds to S^T S.
constexpr int kAssignRows = 32;

struct Layer {
  int inputs;  // with the column of ones
  int outputs;
  int in_stride;  // of `in` and `delta`, rounded up so that four neighbours can be read at once
  int delta_stride;
  int first;     // of the layer's weights in a network
  float* in;     // [batch, n, in_stride]
  float* delta;  // [batch, n, delta_stride], the loss's gradient by what the layer gives before its ELU
};

struct Fit {
  int n;
  int d;
  int k;
  int width;        // of the hidden layer
  int parameters;   // of a network, rounded up
  int chunks;       // of kGradientDepth nodes
  int gram_blocks;  // of kAssignRows nodes
  bool ncut;
  float dropout;
  uint64_t seed;
  Layer graph;
  Layer hidden;
  Layer logits;
  float* weights;     // [batch, parameters]
  float* mean;        // the same, AdamW's
  float* square;      // the same, AdamW's
  float* gradients;   // [chunks, batch, parameters]
  float* degrees;     // [batch, n], row sums of the affinity's positive part
  float* scales;      // [batch, n], D^-1/2
  float* units;       // [batch, n, width], the hidden layer before dropout
  float* columns;     // [batch, k, n], the assignment transposed
  float* near;        // [batch, n, k], W S
  float* volumes;     // [batch, n], what each node adds to tr(S^T D S)
  float* insides;     // [batch, n], and to tr(S^T W S)
  float* grams;       // [batch, gram_blocks, k, k], and each block of nodes to S^T S
  double* gram;       // [batch, k, k]
  float* mix;         // [batch, k, k], see fit_loss.h
  float2* slope;      // [batch], near_weight and degree_weight, see fit_loss.h
  float* assignment;  // [batch, n, k]
  float tolerance;
  int* ended;  // [batch], not 0 for an item that is left alone; null where none ends early

  __device__ __forceinline__ bool has_ended(int64_t item) const {
    return ended != nullptr && ended[item] != 0;
  }
};

__device__ __forceinline__ float elu(float x) { return x > 0.0f ? x : expm1f(x); }

// elu'(x) where y = elu(x)
__device__ __forceinline__ float elu_slope(float y) { return y > 0.0f ? 1.0f : y + 1.0f; }

// What a hidden unit is multiplied by.
__device__ __forceinline__ float kept(const Fit& fit, const RandomStream& random, int64_t unit) {
  if (fit.dropout == 0.0f) return 1.0f;
  return random.uniform(static_cast<uint64_t>(unit)) >= fit.dropout ? 1.0f / (1.0f - fit.dropout) : 0.0f;
}

__device__ __forceinline__ RandomStream dropout_stream(const Fit& fit, int step) {
  return RandomStream(fit.seed, kFitDropoutStream + static_cast<uint64_t>(step));
}

// Weights of a layer as the second factor of a product.
__device__ __forceinline__ DepthMajor<float> weights_of(const Fit& fit, const Layer& layer, int64_t item) {
  const float* weights = fit.weights + item * fit.parameters + layer.first;
  const bool aligned = (fit.parameters | layer.first | layer.outputs) % 4 == 0;
  return {weights, layer.outputs, layer.inputs, layer.outputs, aligned};
}

// Calls body(row, col, value) for the calling thread's entries of a tile that lie within rows and columns.
template <class Body>
__device__ __forceinline__ void for_entries(const float (&total)[Tile::kThreadRows][Tile::kThreadCols],
                                            int first_row, int first_col, int rows, int cols,
                                            const Body& body) {
#pragma unroll
  for (int i = 0; i < Tile::kThreadRows; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kThreadCols; ++j) {
      const int row = first_row + Tile::thread_row() + i;
      const int col = first_col + Tile::thread_col() + j;
      if (row < rows && col < cols) body(row, col, total[i][j]);
    }
  }
}

}  // namespace
}  // namespace patchcut
