#pragma once

#include "cpu/simd.h"

namespace patchcut {

constexpr int64_t kNodePadding = 16;  // a multiple of the lanes of a vector

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

// Of k rows, so that near_largest knows how far rounding may have moved their products with another row; each
// padded to whole vectors by infinities, slopes by zeros.
struct ScoreBounds {
  const float* low;    // [padded], half the square of a row's length, and what of the error is its own
  const float* high;   // [padded], less that error
  const float* slope;  // [padded], error over the length of the other row
};

// One row of an image against the rows of another, in columns that are padded to whole panels.
struct ProductRow {
  const int32_t* products;  // [columns]
  int64_t columns;
  float weight;          // of the row
  const float* weights;  // [columns], NaN in the padding
};

// The hot loops of kmeans, kmeans_sums, correlation_cluster and cosegment.
struct ClusterTable {
  PATCHCUT_PER_ISA(ClusterTable);

  // out[m, panel] = squared distances of the rows of a[m, depth] to the columns of packed[depth, panel].
  virtual void squared_distances(int64_t m, int64_t depth, const float* a, const float* packed,
                                 float* out) const = 0;
  // Sum of squared differences, of which only the differences are rounded to float.
  virtual double squared_distance(int64_t count, const float* x, const float* y) const = 0;
  // The rows of which products[i] - squares[i] / 2 may be the largest in exact arithmetic, ascending, where
  // products[padded] are those with a row of this length; returns how many.
  virtual int64_t near_largest(int64_t count, const float* products, const ScoreBounds& bounds, float length,
                               int32_t* rows) const = 0;
  // Brings minima[panel] down to those of values[m, panel]; rows[panel] gets `first` and up, the first on a
  // tie.
  virtual void lower_minima(int64_t m, int32_t first, const float* values, float* minima,
                            int32_t* rows) const = 0;
  // lowest = min(lowest, x); gives the sum of lowest.
  virtual float lower_row(int64_t count, const float* x, float* lowest) const = 0;
  // from -= x, to += x; from may be null.
  virtual void move_row(int64_t count, const float* x, double* from, double* to) const = 0;
  // out = (x + y) / 2, the same whichever is x; infinite where the sum is beyond float32
  virtual void average_rows(int64_t count, const float* x, const float* y, float* out) const = 0;
  virtual double sum_absolute(int64_t count, const float* x) const = 0;
  // out = round(x * scale); out may be the memory of x.
  virtual void round_row(int64_t count, const float* x, double scale, int32_t* out) const = 0;
  // from -= weights, to += weights; from may be null. count is a multiple of kNodePadding.
  virtual void move_weights(int64_t count, const int32_t* weights, int32_t* from, int32_t* to) const = 0;
  // The move of a free node to another cluster that gains most or loses least: the first node, and the first
  // of its clusters, on a tie. A new cluster has the sum 0 for every node that is not alone; it wins ties.
  virtual NodeMove best_move(const PartitionView& partition) const = 0;
  // out = round(x * scale); returns the sum of (x - out / scale)^2.
  virtual float quantize_row(int64_t count, const float* x, float scale, int16_t* out) const = 0;
  // Raises column_maxima[columns] to products * weight; returns the largest of products * weights.
  virtual float raise_maxima(const ProductRow& row, float* column_maxima) const = 0;
  // The columns where products * weights is at least `threshold`, or products * weight at least that of the
  // column, ascending; returns how many.
  virtual int64_t near_maxima(const ProductRow& row, float threshold, const float* thresholds,
                              int32_t* found) const = 0;
  virtual float dot(int64_t count, const float* x, const float* y) const = 0;
};

}  // namespace patchcut
