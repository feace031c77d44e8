#pragma once

#include <cstdint>

#include "cpu/simd.h"

namespace patchcut::PATCHCUT_ISA {

void gemm_panel(int64_t m, int64_t k, const float* a, int64_t lda, int64_t step, const float* packed,
                float* c, int64_t ldc, int64_t cols);
void pack_transposed(int64_t rows, int64_t k, const float* a, int64_t lda, float* packed);
float finish_affinity_tile(const AffinityTile& tile);

bool all_finite(int64_t count, const float* x);
void half_to_float(int64_t count, const uint16_t* halves, float* out);
bool float_to_half(int64_t count, const float* x, uint16_t* halves);
float sum(int64_t count, const float* x);
float sum_squares(int64_t count, const float* x);
void scale_row(int64_t count, const float* x, float scale, float* out);
void offset_row(int64_t count, const float* x, float offset, float* out);
void standardize_row(int64_t count, const float* x, const float* shift, const float* scale, float* out);
void gcn_row(int64_t count, const float* x, const float* self, float scale, const float* root,
             const float* bias, float* out);
void bias_row(int64_t count, const float* bias, bool with_elu, float* x);
void softmax_rows(int64_t rows, int64_t k, float sharpness, float* x);

void dot_rows(int64_t rows, int64_t count, const float* a, int64_t lda, const float* x, float* sums);
void add_rows(int64_t rows, int64_t count, const float* a, int64_t lda, const float* scales, float* y);
void dot_add_rows(int64_t rows, int64_t count, const float* a, int64_t lda, int64_t vectors, int64_t stride,
                  const float* x, const float* scales, float* sums, float* y);

void blend_bytes(int64_t count, int64_t taps, const uint8_t* const* rows, const float* weights, float* out);
void resize_row(int64_t width, const float* row, const int32_t* starts, const int32_t* counts,
                const float* weights, int64_t weight_stride, const float* scale, const float* offset,
                float* const* planes);
void argmax_span(int64_t count, const float* fraction, int64_t classes, const float* base, const float* slope,
                 const int32_t* names, int32_t* labels, float* confidence);

void multiply_by_rows(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                      int64_t ldb, float* c, int64_t ldc);
float keep_positive(int64_t count, const float* x, float* out);
void elu_row(int64_t count, float* x);
void elu_slope_row(int64_t count, const float* y, float* gradient);
void multiply_row(int64_t count, const float* x, const float* y, float* out);
void dropout_row(int64_t count, uint64_t seed, uint64_t stream, uint64_t first, float dropout, float* kept);
void adamw_row(int64_t count, const AdamWStep& step, const float* gradient, float* mean, float* square,
               float* values);

void squared_distances(int64_t m, int64_t depth, const float* a, const float* packed, float* out);
void lower_minima(int64_t m, int32_t first, const float* values, float* minima, int32_t* rows);
float lower_row(int64_t count, const float* x, float* lowest);
void move_row(int64_t count, const float* x, double* from, double* to);

void average_rows(int64_t count, const float* x, const float* y, float* out);
double sum_absolute(int64_t count, const float* x);
void round_row(int64_t count, const float* x, double scale, int32_t* out);
void move_weights(int64_t count, const int32_t* weights, int32_t* from, int32_t* to);
NodeMove best_move(const PartitionView& partition);

}  // namespace patchcut::PATCHCUT_ISA
