#pragma once

#include <cstdint>

namespace patchcut {

struct RefineTable;
struct SolverTable;

// One tile of an affinity, and where it goes.
struct AffinityTile {
  const float* products;  // [panel, panel], zeros past `rows` and `columns`
  int64_t rows;
  int64_t columns;
  float limit;      // entries are clamped to +-limit
  float threshold;  // entries at or below it become 0, where `sparse`
  bool sparse;
  float* out;     // [rows, columns] within rows of `stride`
  float* mirror;  // [columns, panel] within rows of `stride`: the transpose; null on the diagonal
  int64_t stride;
  float* row_sums;     // [panel]
  float* column_sums;  // [panel]
};

// What changes from one step of AdamW (arXiv 1711.05101) to the next.
struct AdamWStep {
  float decay;       // 1 - learning rate * weight decay
  float step_size;   // learning rate / (1 - beta1^t)
  float root_scale;  // (1 - beta2^t)^-1/2
};

// Nodes in clusters, for best_move.
struct PartitionView {
  int64_t nodes;           // a multiple of kNodePadding
  int64_t clusters;        // those that have nodes
  const int32_t* numbers;  // [clusters], ascending
  const int32_t* sizes;    // by number
  const int32_t* sums;     // [.., nodes], by number: the weights between a cluster and each node, added up
  const int32_t* labels;   // [nodes], the number of each node's cluster
  const int32_t* free;     // [nodes], -1 where a node may move, 0 where not
  int32_t vacant;          // number of a new cluster; -1 where there may be none
};

struct NodeMove {
  int32_t node;  // -1 where no node can move
  int32_t target;
  int32_t gain;
};

// The hot loops of one instruction set.
struct SimdTable {
  const char* name;
  int64_t panel;  // columns of a packed panel, rows and columns of an affinity tile
  const RefineTable* refine;
  const SolverTable* solver;

  // c[m, cols] = a[m, k] @ panel[k, panel], of which the first `cols` columns are kept; a[i, p] lies at
  // a[i * lda + p * step].
  void (*gemm_panel)(int64_t m, int64_t k, const float* a, int64_t lda, int64_t step, const float* packed,
                     float* c, int64_t ldc, int64_t cols);
  // packed[k, panel] = a[rows, k] transposed, zeros past `rows`.
  void (*pack_transposed)(int64_t rows, int64_t k, const float* a, int64_t lda, float* packed);
  // Writes the tile where it goes; returns its largest entry, or 0 where none is above.
  float (*finish_affinity_tile)(const AffinityTile& tile);

  bool (*all_finite)(int64_t count, const float* x);
  // IEEE half precision; every half is a float.
  void (*half_to_float)(int64_t count, const uint16_t* halves, float* out);
  // To the nearest, ties to even; returns whether all halves are finite.
  bool (*float_to_half)(int64_t count, const float* x, uint16_t* halves);
  float (*sum)(int64_t count, const float* x);
  float (*sum_squares)(int64_t count, const float* x);
  // out = x * scale
  void (*scale_row)(int64_t count, const float* x, float scale, float* out);
  // out = x + offset
  void (*offset_row)(int64_t count, const float* x, float offset, float* out);
  // out = (x - shift) * scale
  void (*standardize_row)(int64_t count, const float* x, const float* shift, const float* scale, float* out);
  // out = elu(scale * (x + self) + root + bias); root may be null.
  void (*gcn_row)(int64_t count, const float* x, const float* self, float scale, const float* root,
                  const float* bias, float* out);
  // x += bias, then elu where asked.
  void (*bias_row)(int64_t count, const float* bias, bool elu, float* x);
  // x[rows, k] = softmax(x * sharpness) by row.
  void (*softmax_rows)(int64_t rows, int64_t k, float sharpness, float* x);

  int64_t row_group;  // rows that the next three take at most
  // sums[r] += a[r, count] . x
  void (*dot_rows)(int64_t rows, int64_t count, const float* a, int64_t lda, const float* x, float* sums);
  // y[count] += sum over r of scales[r] * a[r, count]
  void (*add_rows)(int64_t rows, int64_t count, const float* a, int64_t lda, const float* scales, float* y);
  // Both for every vector v: sums[v, r] += a[r, count] . x[v], y[v] += sum over r of scales[v, r] * a[r]. x,
  // scales and y have the row stride `stride`, sums kMostRows.
  void (*dot_add_rows)(int64_t rows, int64_t count, const float* a, int64_t lda, int64_t vectors,
                       int64_t stride, const float* x, const float* scales, float* sums, float* y);

  // out[i] = sum over t of weights[t] * rows[t][i]
  void (*blend_bytes)(int64_t count, int64_t taps, const uint8_t* const* rows, const float* weights,
                      float* out);
  // planes[c][x] = scale[c] * (sum over t of weights[x, t] * row[starts[x] + t, c]) + offset[c]; row holds
  // three interleaved channels and one float of padding.
  void (*resize_row)(int64_t width, const float* row, const int32_t* starts, const int32_t* counts,
                     const float* weights, int64_t weight_stride, const float* scale, const float* offset,
                     float* const* planes);
  // labels[x] = names[argmax_c base[c] + slope[c] * fraction[x]], the first c on a tie. Reads and writes
  // whole vectors: the arrays need kSpanPadding elements after the last. confidence may be null.
  void (*argmax_span)(int64_t count, const float* fraction, int64_t classes, const float* base,
                      const float* slope, const int32_t* names, int32_t* labels, float* confidence);

  // c[m, n] = a[m, k] b[n, k]^T for few rows of b: reads a once.
  void (*multiply_by_rows)(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                           int64_t ldb, float* c, int64_t ldc);
  // out = max(x, 0); gives the least of x and 0.
  float (*keep_positive)(int64_t count, const float* x, float* out);
  // x = elu(x)
  void (*elu_row)(int64_t count, float* x);
  // gradient *= elu'(x) where y = elu(x)
  void (*elu_slope_row)(int64_t count, const float* y, float* gradient);
  // out = x * y
  void (*multiply_row)(int64_t count, const float* x, const float* y, float* out);
  // kept[i] = 1 / (1 - dropout), or 0 where number first + i of the stream is below dropout.
  void (*dropout_row)(int64_t count, uint64_t seed, uint64_t stream, uint64_t first, float dropout,
                      float* kept);
  // One step of AdamW with torch's betas and epsilon.
  void (*adamw_row)(int64_t count, const AdamWStep& step, const float* gradient, float* mean, float* square,
                    float* values);

  // out[m, panel] = squared distances of the rows of a[m, depth] to the columns of packed[depth, panel].
  void (*squared_distances)(int64_t m, int64_t depth, const float* a, const float* packed, float* out);
  // Brings minima[panel] down to those of values[m, panel]; rows[panel] gets `first` and up, the first on a
  // tie.
  void (*lower_minima)(int64_t m, int32_t first, const float* values, float* minima, int32_t* rows);
  // lowest = min(lowest, x); gives the sum of lowest.
  float (*lower_row)(int64_t count, const float* x, float* lowest);
  // from -= x, to += x; from may be null.
  void (*move_row)(int64_t count, const float* x, double* from, double* to);

  // out = (x + y) / 2
  void (*average_rows)(int64_t count, const float* x, const float* y, float* out);
  double (*sum_absolute)(int64_t count, const float* x);
  // out = round(x * scale); out may be the memory of x.
  void (*round_row)(int64_t count, const float* x, double scale, int32_t* out);
  // from -= weights, to += weights; from may be null. count is a multiple of kNodePadding.
  void (*move_weights)(int64_t count, const int32_t* weights, int32_t* from, int32_t* to);
  // The move of a free node to another cluster that gains most or loses least: the first node, and the first
  // of its clusters, on a tie. A new cluster has the sum 0 for every node that is not alone; it wins ties.
  NodeMove (*best_move)(const PartitionView& partition);
};

constexpr int64_t kSpanPadding = 16;
constexpr int64_t kNodePadding = 16;
constexpr int64_t kMostRows = 16;  // of a row group

const SimdTable& simd();

}  // namespace patchcut
