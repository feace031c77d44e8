#include <algorithm>
#include <cmath>
#include <string>

#include "cpu/errors.h"
#include "cpu/gemm.h"
#include "cpu/random.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"
#include "fit/fit_graph.h"
#include "fit/fit_loss.h"
#include "fit/fit_settings.h"
#include "fit/gnn_fit.h"
#include "fit/simd.h"

namespace patchcut {
namespace {

// Rows of a layer's weights that one task updates.
constexpr int64_t kWeightBlock = 32;

// out = [in, 1] weights: the bias is the last row, so that one product gives all gradients of a layer.
// Weights and what belongs to them lie in panels [ceil(outputs / panel), inputs, panel], zeros past
// `outputs`.
struct Layer {
  int64_t inputs;  // with the column of ones
  int64_t outputs;
  float* in;  // [n, inputs]
  float* weights;
  float* mean;        // AdamW's, of the gradient
  float* square;      // AdamW's, of the gradient's square
  float* transposed;  // the weights without the bias, [outputs, inputs - 1] in panels
  float* delta;       // the loss's gradient by `out`, [n, outputs] in panels
};

struct Fit {
  const SimdTable& simd;
  const FitTable& loops;
  const patchcut_gnn_fit_params& params;
  const float* affinity;  // [n, n]
  int64_t n;
  int64_t k;
  Layer graph;   // from propagated features, to ELU
  Layer hidden;  // to ELU and dropout
  Layer logits;
  LossSums sums;
  float* degrees;     // [n]
  float* units;       // [n, hidden_width], before dropout
  float* kept;        // [n, hidden_width], what the units are multiplied by: 0 where they drop
  float* assignment;  // [n, k], S
  float* columns;     // [k, n], the same transposed
  float* near;        // [n, k], W S
};

void draw(uint64_t seed, uint64_t stream, float bound, int64_t count, float* values) {
  const RandomStream random(seed, stream);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = (2.0f * random.uniform(static_cast<uint64_t>(i)) - 1.0f) * bound;
  }
}

// weight[inputs, outputs] and bias[outputs], or null: drawn.
void start_layer(const Fit& fit, int index, const Layer& layer, const float* weight, const float* bias) {
  Scratch scratch;
  const int64_t count = (layer.inputs - 1) * layer.outputs;
  float* rows = scratch.take<float>(count + layer.outputs);
  if (weight == nullptr) {
    const WeightBounds bounds = weight_bounds(index, layer.inputs - 1, layer.outputs);
    draw(fit.params.seed, 2 * index, bounds.weight, count, rows);
    draw(fit.params.seed, 2 * index + 1, bounds.bias, layer.outputs, rows + count);
  } else {
    std::copy_n(weight, count, rows);
    std::copy_n(bias, layer.outputs, rows + count);
  }
  pack_columns(fit.simd, layer.inputs, layer.outputs, rows, layer.weights);
  std::fill_n(layer.mean, packed_size(fit.simd, layer.inputs, layer.outputs), 0.0f);
  std::fill_n(layer.square, packed_size(fit.simd, layer.inputs, layer.outputs), 0.0f);
}

void transpose_weights(const SimdTable& simd, const Layer& layer) {
  const int64_t panel = simd.panel;
  for (int64_t i = 0; i < layer.inputs - 1; i += panel) {
    for (int64_t j = 0; j < layer.outputs; j += panel) {
      simd.pack_transposed(std::min(panel, layer.inputs - 1 - i), std::min(panel, layer.outputs - j),
                           layer.weights + j * layer.inputs + i * panel, panel,
                           layer.transposed + i * layer.outputs + j * panel);
    }
  }
}

// out = [in, 1] weights
void apply_layer(const Fit& fit, const Layer& layer, int64_t first, int64_t rows, float* out, int64_t ldo) {
  gemm_rows(fit.simd, rows, layer.outputs, layer.inputs, layer.in + first * layer.inputs, layer.inputs,
            layer.weights, out, ldo);
}

// What rows of S add to S^T S and tr(S^T D S).
void add_balance(const Fit& fit, int64_t first, int64_t rows) {
  const int64_t k = fit.k;
  const int64_t block = first / kRowBlock;
  float* gram = fit.sums.gram + block * k * k;
  std::fill_n(gram, k * k, 0.0f);
  float volume = 0.0f;
  for (int64_t i = first; i < first + rows; ++i) {
    const float* s = fit.assignment + i * k;
    float squares = 0.0f;
    for (int64_t c = 0; c < k; ++c) {
      for (int64_t e = 0; e < k; ++e) gram[c * k + e] += s[c] * s[e];
      squares += s[c] * s[c];
    }
    volume += fit.degrees[i] * squares;
  }
  fit.sums.volume[block] = volume;
}

void assign_rows(const Fit& fit, int64_t step, int64_t first, int64_t rows) {
  const SimdTable& simd = fit.simd;
  const int64_t nodes_stride = fit.hidden.inputs;
  const int64_t width = fit.hidden.outputs;
  float* nodes = fit.hidden.in;
  apply_layer(fit, fit.graph, first, rows, nodes + first * nodes_stride, nodes_stride);
  for (int64_t i = first; i < first + rows; ++i)
    fit.loops.elu_row(fit.graph.outputs, nodes + i * nodes_stride);

  float* units = fit.units + first * width;
  float* kept = fit.kept + first * width;
  apply_layer(fit, fit.hidden, first, rows, units, width);
  fit.loops.elu_row(rows * width, units);
  if (fit.params.dropout > 0.0f) {
    fit.loops.dropout_row(rows * width, fit.params.seed, kFitDropoutStream + static_cast<uint64_t>(step),
                          static_cast<uint64_t>(first * width), fit.params.dropout, kept);
  }
  for (int64_t i = 0; i < rows; ++i) {
    simd.multiply_row(width, units + i * width, kept + i * width,
                      fit.logits.in + (first + i) * fit.logits.inputs);
  }
  float* assignment = fit.assignment + first * fit.k;
  apply_layer(fit, fit.logits, first, rows, assignment, fit.k);
  simd.softmax_rows(rows, fit.k, 1.0f, assignment);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < fit.k; ++c) fit.columns[c * fit.n + first + i] = assignment[i * fit.k + c];
  }
  if (fit.params.loss == PATCHCUT_NCUT) add_balance(fit, first, rows);
}

// W S, and what the rows add to tr(S^T W S). S is narrow: this is one reading of W.
void gather_rows(const Fit& fit, int64_t first, int64_t rows) {
  const int64_t k = fit.k;
  const float* s = fit.assignment + first * k;
  float* near = fit.near + first * k;
  fit.loops.multiply_by_rows(rows, k, fit.n, fit.affinity + first * fit.n, fit.n, fit.columns, fit.n, near,
                             k);
  double inside = 0.0;
  for (int64_t i = 0; i < rows * k; ++i) inside += static_cast<double>(s[i]) * near[i];
  fit.sums.inside[first / kRowBlock] = static_cast<float>(inside);
}

// out[k] = the loss's gradient by the logits of node i.
void slope_logits(const Fit& fit, const LossSlope& slope, int64_t i, float* out) {
  const int64_t k = fit.k;
  const float* s = fit.assignment + i * k;
  const float own = slope.degree_weight * fit.degrees[i];
  float mean = 0.0f;
  for (int64_t c = 0; c < k; ++c) {
    out[c] = slope.near_weight * fit.near[i * k + c];
    if (fit.params.loss == PATCHCUT_NCUT) {
      out[c] += own * s[c];
      for (int64_t e = 0; e < k; ++e) out[c] += s[e] * slope.mix[e * k + c];
    }
    mean += s[c] * out[c];
  }
  for (int64_t c = 0; c < k; ++c) out[c] = s[c] * (out[c] - mean);
}

// Copies rows of delta[rows, outputs] to their place in a layer's panels.
void keep_delta(const Fit& fit, const Layer& layer, int64_t first, int64_t rows, const float* delta) {
  const int64_t panel = fit.simd.panel;
  for (int64_t j = 0; j < layer.outputs; j += panel) {
    float* out = layer.delta + j * fit.n + first * panel;
    const int64_t cols = std::min(panel, layer.outputs - j);
    for (int64_t i = 0; i < rows; ++i) std::copy_n(delta + i * layer.outputs + j, cols, out + i * panel);
  }
}

// The chain rule, from the logits back to what the graph layer gives.
void return_rows(const Fit& fit, const LossSlope& slope, int64_t first, int64_t rows) {
  const SimdTable& simd = fit.simd;
  const int64_t k = fit.k;
  const int64_t width = fit.hidden.outputs;
  const int64_t nodes = fit.graph.outputs;
  Scratch scratch;
  float* to_logits = scratch.take<float>(rows * k);
  float* to_units = scratch.take<float>(rows * width);
  float* to_nodes = scratch.take<float>(rows * nodes);
  for (int64_t i = 0; i < rows; ++i) slope_logits(fit, slope, first + i, to_logits + i * k);
  gemm_rows(simd, rows, width, k, to_logits, k, fit.logits.transposed, to_units, width);
  simd.multiply_row(rows * width, to_units, fit.kept + first * width, to_units);
  fit.loops.elu_slope_row(rows * width, fit.units + first * width, to_units);
  gemm_rows(simd, rows, nodes, width, to_units, width, fit.hidden.transposed, to_nodes, nodes);
  for (int64_t i = 0; i < rows; ++i) {
    fit.loops.elu_slope_row(nodes, fit.hidden.in + (first + i) * fit.hidden.inputs, to_nodes + i * nodes);
  }
  keep_delta(fit, fit.logits, first, rows, to_logits);
  keep_delta(fit, fit.hidden, first, rows, to_units);
  keep_delta(fit, fit.graph, first, rows, to_nodes);
}

// Rows of a layer's weights go one step down their gradient, [in, 1]^T delta.
void update_rows(const Fit& fit, const Layer& layer, const AdamWStep& step, int64_t first) {
  const int64_t panel = fit.simd.panel;
  const int64_t rows = std::min(kWeightBlock, layer.inputs - first);
  Scratch scratch;
  float* gradient = scratch.take<float>(rows * panel);
  for (int64_t j = 0; j < layer.outputs; j += panel) {
    const int64_t at = j * layer.inputs + first * panel;
    fit.simd.gemm_panel(rows, fit.n, layer.in + first, 1, layer.inputs, layer.delta + j * fit.n, gradient,
                        panel, panel);
    fit.loops.adamw_row(rows * panel, step, gradient, layer.mean + at, layer.square + at, layer.weights + at);
  }
}

void update_weights(const Fit& fit, int64_t step) {
  const AdamWStep adamw = adamw_step(fit.params.learning_rate, step);
  const Layer* layers[kFitLayers] = {&fit.graph, &fit.hidden, &fit.logits};
  int64_t starts[kFitLayers + 1] = {};  // of each layer's tasks
  for (int l = 0; l < kFitLayers; ++l) {
    starts[l + 1] = starts[l] + (layers[l]->inputs + kWeightBlock - 1) / kWeightBlock;
  }
  parallel_for(starts[kFitLayers], fit.n * kWeightBlock * 2, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      int l = 0;
      while (task >= starts[l + 1]) ++l;
      update_rows(fit, *layers[l], adamw, (task - starts[l]) * kWeightBlock);
    }
  });
  transpose_weights(fit.simd, fit.hidden);
  transpose_weights(fit.simd, fit.logits);
}

Layer take_layer(Scratch& scratch, const SimdTable& simd, int64_t n, int64_t inputs, int64_t outputs) {
  const int64_t size = packed_size(simd, inputs + 1, outputs);
  const Layer layer{inputs + 1,
                    outputs,
                    scratch.take<float>(n * (inputs + 1)),
                    scratch.take<float>(size),
                    scratch.take<float>(size),
                    scratch.take<float>(size),
                    scratch.take<float>(packed_size(simd, outputs, inputs)),
                    scratch.take<float>(packed_size(simd, n, outputs))};
  for (int64_t i = 0; i < n; ++i) layer.in[i * layer.inputs + inputs] = 1.0f;
  std::fill_n(layer.delta, packed_size(simd, n, outputs), 0.0f);
  return layer;
}

Fit take_fit(Scratch& scratch, const float* affinity, int64_t n, int64_t d, int64_t k,
             const patchcut_gnn_fit_params& params, float* assignment) {
  const SimdTable& table = simd();
  const int64_t blocks = (n + kRowBlock - 1) / kRowBlock;
  const int64_t units = n * params.hidden_width;
  const Fit fit{
      table,
      table.get<FitTable>(),
      params,
      affinity,
      n,
      k,
      take_layer(scratch, table, n, d, params.graph_width),
      take_layer(scratch, table, n, params.graph_width, params.hidden_width),
      take_layer(scratch, table, n, params.hidden_width, k),
      {blocks, scratch.take<float>(blocks * k * k), scratch.take<float>(blocks), scratch.take<float>(blocks)},
      scratch.take<float>(n),
      scratch.take<float>(units),
      scratch.take<float>(units),
      assignment,
      scratch.take<float>(n * k),
      scratch.take<float>(n * k)};
  std::fill_n(fit.kept, units, 1.0f);
  return fit;
}

void start(const Fit& fit, const float* features, const patchcut_gnn_fit_weights& weights) {
  start_layer(fit, 0, fit.graph, weights.theta, weights.theta_bias);
  start_layer(fit, 1, fit.hidden, weights.hidden, weights.hidden_bias);
  start_layer(fit, 2, fit.logits, weights.logits, weights.logits_bias);
  transpose_weights(fit.simd, fit.hidden);
  transpose_weights(fit.simd, fit.logits);
  // Ahat (X theta) = (Ahat X) theta: all passes share this one product with the affinity.
  const float least = propagate_features(features, fit.affinity, fit.n, fit.graph.inputs - 1, fit.graph.in,
                                         fit.graph.inputs, fit.degrees);
  require(least >= 0.0f || fit.params.loss != PATCHCUT_NCUT, "gnn_fit",
          "affinity must be at least 0 for NCut, got " + std::to_string(least));
}

// A layer's weights and biases, one row after the other; gives what follows them.
float* unpack_weights(const SimdTable& simd, const Layer& layer, float* rows) {
  const int64_t panel = simd.panel;
  for (int64_t i = 0; i < layer.inputs; ++i) {
    for (int64_t j = 0; j < layer.outputs; j += panel) {
      std::copy_n(layer.weights + j * layer.inputs + i * panel, std::min(panel, layer.outputs - j),
                  rows + i * layer.outputs + j);
    }
  }
  return rows + layer.inputs * layer.outputs;
}

int64_t pass_cycles(const Fit& fit) {
  const int64_t panel = fit.simd.panel;
  return (fit.graph.inputs * std::max(fit.graph.outputs, panel) +
          fit.hidden.inputs * std::max(fit.hidden.outputs, panel) +
          fit.logits.inputs * std::max(fit.logits.outputs, panel)) /
         16;
}

}  // namespace

void gnn_fit_cpu(const float* features, const float* affinity, int64_t n, int64_t d, int64_t k,
                 const patchcut_gnn_fit_params& params, const patchcut_gnn_fit_weights* weights,
                 float* assignment, float* losses, float* fitted) {
  if (n == 0) return;
  Scratch scratch;
  const Fit fit = take_fit(scratch, affinity, n, d, k, params, assignment);
  LossSlope slope{0.0f, 0.0f, scratch.take<float>(k * k)};
  start(fit, features, weights == nullptr ? patchcut_gnn_fit_weights{} : *weights);
  for (int64_t step = 0; step < params.steps; ++step) {
    for_row_blocks(n, pass_cycles(fit),
                   [&](int64_t first, int64_t rows) { assign_rows(fit, step, first, rows); });
    for_row_blocks(n, n * k / 8, [&](int64_t first, int64_t rows) { gather_rows(fit, first, rows); });
    const double loss = measure_loss(params.loss, fit.sums, k, slope);
    losses[step] = static_cast<float>(loss);
    require(std::isfinite(losses[step]), "gnn_fit",
            "features and affinity must lead to finite losses, got " + std::to_string(losses[step]));
    const bool settled = step > 0 && improves_little(params.tolerance, losses[step - 1], losses[step]);
    if (settled) std::fill_n(losses + step, params.steps - step, losses[step]);
    if (settled || step + 1 == params.steps) break;  // what the caller gets is this pass's
    for_row_blocks(n, pass_cycles(fit) / 8,
                   [&](int64_t first, int64_t rows) { return_rows(fit, slope, first, rows); });
    update_weights(fit, step);
  }
  if (fitted == nullptr) return;
  for (const Layer* layer : {&fit.graph, &fit.hidden, &fit.logits}) {
    fitted = unpack_weights(fit.simd, *layer, fitted);
  }
}

}  // namespace patchcut
