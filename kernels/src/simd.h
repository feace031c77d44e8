#pragma once

#include <cstdint>

namespace patchcut {

// The hot loops of one instruction set.
struct SimdTable {
  const char* name;
  int64_t panel;  // columns of a packed panel, and rows of an affinity tile

  // c[m, cols] = a[m, k] @ panel[k, panel], of which the first `cols` columns are kept.
  void (*gemm_panel)(int64_t m, int64_t k, const float* a, int64_t lda, const float* packed, float* c,
                     int64_t ldc, int64_t cols);
  // packed[k, panel] = a[rows, k] transposed, zeros past `rows`.
  void (*pack_transposed)(int64_t rows, int64_t k, const float* a, int64_t lda, float* packed);
  // Clamps a tile[rows, panel] to +-limit, drops entries <= threshold where `sparse`; gives its row sums,
  // column sums and maximum.
  float (*finish_affinity_tile)(int64_t rows, float* tile, float limit, float threshold, bool sparse,
                                float* row_sums, float* column_sums);
  // out[j * ldo + i] = tile[i, j], i < rows, j < cols.
  void (*store_transposed)(int64_t rows, int64_t cols, const float* tile, float* out, int64_t ldo);

  bool (*all_finite)(int64_t count, const float* x);
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
};

constexpr int64_t kSpanPadding = 16;

const SimdTable& simd();

}  // namespace patchcut
