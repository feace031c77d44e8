#pragma once

#include <cstdint>

namespace patchcut {

class CudaQueue;

enum class FitLoss { kNCut, kCorrelationClustering };

// DeepCut (arXiv 2212.05853) as published.
struct GnnFitParams {
  FitLoss loss = FitLoss::kNCut;
  int64_t steps = 10;  // passes, at least 1; between two of them AdamW moves the weights
  // AdamW's, above 0; its other settings are torch's defaults: betas 0.9 and 0.999, decay 0.01, epsilon 1e-8.
  float lr = 1e-3f;
  float dropout = 0.25f;      // of the hidden layer's units, in [0, 1)
  uint64_t seed = 0;          // of the units that drop, and of the weights where none are given
  int64_t graph_width = 64;   // of the graph layer
  int64_t hidden_width = 32;  // of the hidden layer
};

// Where the fit starts.
struct GnnFitWeights {
  const float* theta;        // [d, graph_width]
  const float* theta_bias;   // [graph_width]
  const float* hidden;       // [graph_width, hidden_width]
  const float* hidden_bias;  // [hidden_width]
  const float* logits;       // [hidden_width, k]
  const float* logits_bias;  // [k]
};

// Fits a fresh network to one graph; gives what its last pass says, the one that losses[steps - 1] is of.
// Throws std::invalid_argument where features or affinity are not finite, where it has negative entries with
// NCut, or where a loss overflows.
void gnn_fit_cpu(const float* features,  // [n, d]
                 const float* affinity,  // [n, n], symmetric
                 int64_t n, int64_t d, int64_t k, const GnnFitParams& params,
                 const GnnFitWeights* weights,  // or null: drawn from the seed
                 float* assignment,             // [n, k]
                 float* losses);                // [steps]

// Of a batch; arrays and weights lie on the queue's device. `dtype`, `affinity_dtype` are patchcut_dtype.
void gnn_fit_cuda(const void* features,  // [batch, n, d]
                  int32_t dtype,
                  const void* affinity,  // [batch, n, n], symmetric
                  int32_t affinity_dtype, int64_t batch, int64_t n, int64_t d, int64_t k,
                  const GnnFitParams& params,
                  const GnnFitWeights* weights,  // or null: drawn from the seed
                  float* assignment,             // [batch, n, k]
                  float* losses,                 // [batch, steps]
                  CudaQueue& queue);

}  // namespace patchcut
