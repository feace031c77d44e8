#pragma once

#include "cpu/simd.h"

namespace patchcut {

// The hot loops of guided_refine. Rows lie in memory that is padded to whole vectors and one vector more;
// they are read and written beyond `count`. A group of planes has `stride` elements from one to the next.
struct GuidedTable {
  PATCHCUT_PER_ISA(GuidedTable);

  // Three planes of interleaved pixels, 128 subtracted.
  virtual void split_channels(int64_t count, const uint8_t* pixels, int8_t* planes, int64_t stride) const = 0;
  // Three planes as floats.
  virtual void widen_planes(int64_t count, const int8_t* planes, int64_t stride, float* out) const = 0;
  // 1 where labels is `label`, else 0.
  virtual void indicator_row(int64_t count, const int32_t* labels, int32_t label, float* out) const = 0;
  // sums[9] += weight * (moments of enter - moments of leave): I[3], then the upper triangle of I I^T.
  virtual void slide_guide_sums(int64_t count, float weight, const float* enter, const float* leave,
                                float* sums, int64_t stride) const = 0;
  // sums[4] += weight * (moments of enter - moments of leave): p I[3], then p.
  virtual void slide_map_sums(int64_t count, float weight, const float* enter, const float* leave,
                              int64_t guide_stride, const float* enter_map, const float* leave_map,
                              float* sums, int64_t stride) const = 0;
  // sums += weight * (enter - leave)
  virtual void slide_sums(int64_t count, float weight, const float* enter, const float* leave,
                          float* sums) const = 0;
  // out[x] = row[x + 1] + .. + row[x + 2 * inner + 1] + edge * (row[x] + row[x + 2 * inner + 2])
  virtual void box_row(int64_t count, int64_t inner, float edge, const float* row, float* work,
                       float* out) const = 0;
  // Of sums[9] over windows: factor[9] holds the means of I and L D L^T of their covariance and eps.
  virtual void factor_guide_row(int64_t count, float scale, float eps, const float* sums, float* factor,
                                int64_t stride) const = 0;
  // Of sums[4] over windows: coefficients[4], a then b of the best p = a I + b.
  virtual void solve_row(int64_t count, float scale, const float* factor, int64_t factor_stride,
                         const float* sums, int64_t stride, float* coefficients,
                         int64_t out_stride) const = 0;
  // out = scale * (a I + b); out ends after `count`.
  virtual void apply_row(int64_t count, float scale, const float* guide, int64_t guide_stride,
                         const float* coefficients, int64_t stride, float* out) const = 0;
  // out = low * low_weight + high * high_weight
  virtual void blend_rows(int64_t count, const float* low, const float* high, float low_weight,
                          float high_weight, float* out) const = 0;
  // out = a I + b, with a and b between those at cells[x] - first_cell and the next; out ends after `count`.
  virtual void upsample_apply_row(int64_t count, const int32_t* cells, const float* fractions,
                                  const float* guide, int64_t guide_stride, int64_t first_cell,
                                  const float* coefficients, int64_t stride, float* out) const = 0;
  // Where value is above best, it becomes best and `label` the label; rest -= value. Nothing is padded.
  virtual void argmax_row(int64_t count, const float* value, int32_t label, float* best, float* rest,
                          int32_t* labels) const = 0;
  // The same of `rest`, which wins a tie where its label is the lower one.
  virtual void argmax_rest_row(int64_t count, const float* best, const float* rest, int32_t label,
                               int32_t* labels) const = 0;
};

}  // namespace patchcut
