#include "cuts/cut_graphs.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "cpu/errors.h"
#include "cpu/feature_rows.h"
#include "cpu/thread_pool.h"

namespace patchcut {
namespace {

constexpr int64_t kColumns = 1024;     // half a row group of this length stays in the L1 cache
constexpr int64_t kEntries = 1 << 15;  // of a strip of weights
constexpr int64_t kMaxStrips = 32;
constexpr int64_t kStripRows = 128;  // of a strip of features

int64_t count_strips(int64_t n) { return std::clamp<int64_t>(n * n / 2 / kEntries, 1, kMaxStrips); }

void require_degree(const char* op, float degree, int64_t node) {
  require_finite(std::isfinite(degree), op, "weights and their sums");
  if (degree >= 0.0f) return;
  require(false, op,
          "the sum of a node's weights must be at least 0, got " + std::to_string(degree) + " at node " +
              std::to_string(node) + "; use a threshold, or an offset of 1");
}

}  // namespace

DenseGraph::DenseGraph(const char* op, const float* weights, const float* row_sums, int64_t n, float floor,
                       Scratch& scratch)
    : simd_(simd()),
      loops_(simd_.get<CutTable>()),
      weights_(weights),
      n_(n),
      floor_(floor),
      strips_(count_strips(n)),
      scales_(scratch.take<float>(n)),
      known_(scratch.take<float>(n)) {
  if (row_sums == nullptr) {
    std::fill_n(scales_, n, 1.0f);
    multiply_weights(1, scales_, known_);
  } else {
    const float joined = floor * static_cast<float>(n);
    for (int64_t i = 0; i < n; ++i) known_[i] = joined + (1.0f - floor) * row_sums[i];
  }
  double total = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const float degree = known_[i];
    require_degree(op, degree, i);
    scales_[i] = degree > 0.0f ? 1.0f / std::sqrt(degree) : 0.0f;
    known_[i] = std::sqrt(degree);
    total += degree;
  }
  simd_.scale_row(n, known_, total > 0.0 ? static_cast<float>(1.0 / std::sqrt(total)) : 0.0f, known_);
}

// Strips of the upper triangle have equal areas and whole row groups.
int64_t DenseGraph::strip_begin(int64_t strip) const {
  if (strip == strips_) return n_;
  const double below = 1.0 - static_cast<double>(strip) / static_cast<double>(strips_);
  const int64_t row = static_cast<int64_t>(static_cast<double>(n_) * (1.0 - std::sqrt(below)));
  return row / loops_.row_group * loops_.row_group;
}

// Adds what the rows of one strip of the upper triangle, and their mirror image, give to the products.
void DenseGraph::multiply_strip(int64_t strip, int64_t count, const float* x, float* sums) const {
  Scratch scratch;
  float* dots = scratch.take<float>(count * kMaxRows);
  float* before = scratch.take<float>(count * kMaxRows);
  const int64_t step = count == 1 ? n_ : kColumns;
  const int64_t end = strip_begin(strip + 1);
  for (int64_t i = strip_begin(strip); i < end; i += loops_.row_group) {
    const int64_t rows = std::min(loops_.row_group, n_ - i);
    std::fill_n(dots, count * kMaxRows, 0.0f);
    // The square on the diagonal holds its own mirror image: what is added to these entries is dropped.
    for (int64_t c = 0; c < count; ++c) std::copy_n(sums + c * n_ + i, rows, before + c * kMaxRows);
    for (int64_t j = i; j < n_; j += step) {
      loops_.dot_add_rows(rows, std::min(step, n_ - j), weights_ + i * n_ + j, n_, count, n_, x + j, x + i,
                          dots, sums + j);
    }
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t r = 0; r < rows; ++r) {
        sums[c * n_ + i + r] = before[c * kMaxRows + r] + dots[c * kMaxRows + r];
      }
    }
  }
}

void DenseGraph::add_strips(int64_t count, const float* sums, const float* floors, float* products) const {
  float ones[kMaxRows];
  std::fill_n(ones, kMaxRows, 1.0f - floor_);
  const int64_t tasks = (n_ + kColumns - 1) / kColumns;
  parallel_for(tasks, count * strips_ * kColumns / 8, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin * kColumns; j < std::min(end * kColumns, n_); j += kColumns) {
      const int64_t columns = std::min(kColumns, n_ - j);
      for (int64_t c = 0; c < count; ++c) {
        float* out = products + c * n_ + j;
        std::fill_n(out, columns, floors[c]);
        for (int64_t s = 0; s < strips_; s += loops_.row_group) {
          loops_.add_rows(std::min(loops_.row_group, strips_ - s), columns, sums + (s * count + c) * n_ + j,
                          count * n_, ones, out);
        }
      }
    }
  });
}

void DenseGraph::multiply_weights(int64_t count, const float* x, float* products) const {
  Scratch scratch;
  float* sums = scratch.take<float>(strips_ * count * n_);
  float* floors = scratch.take<float>(count);
  for (int64_t c = 0; c < count; ++c) floors[c] = floor_ * simd_.sum(n_, x + c * n_);
  parallel_for(strips_, count * n_ * n_ / strips_ / 12, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      float* own = sums + s * count * n_;
      std::fill_n(own, count * n_, 0.0f);
      multiply_strip(s, count, x, own);
    }
  });
  add_strips(count, sums, floors, products);
}

void DenseGraph::multiply(int64_t count, const float* x, float* products) const {
  Scratch scratch;
  float* scaled = scratch.take<float>(count * n_);
  for (int64_t c = 0; c < count; ++c) simd_.multiply_row(n_, x + c * n_, scales_, scaled + c * n_);
  multiply_weights(count, scaled, products);
  for (int64_t c = 0; c < count; ++c) {
    simd_.multiply_row(n_, products + c * n_, scales_, products + c * n_);
  }
}

CosineGraph::CosineGraph(const char* op, const float* features, int64_t n, int64_t d, float offset,
                         Scratch& scratch)
    : simd_(simd()),
      loops_(simd_.get<CutTable>()),
      n_(n),
      d_(d),
      root_offset_(std::sqrt(offset)),
      rows_(scratch.take<float>(n * d)),
      inverse_degrees_(scratch.take<float>(n)),
      known_(scratch.take<float>(d + 1)) {
  parallel_for(n, d / 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) normalize_row(simd_, d, features + i * d, rows_ + i * d);
  });
  gather(1, nullptr, known_);
  Scratch own;
  float* degrees = own.take<float>(n);
  std::fill_n(inverse_degrees_, n, 1.0f);
  to_nodes(1, known_, degrees);
  for (int64_t i = 0; i < n; ++i) {
    require_degree(op, degrees[i], i);
    inverse_degrees_[i] = degrees[i] > 0.0f ? 1.0f / degrees[i] : 0.0f;
  }
  const float squares = simd_.sum_squares(size(), known_);
  simd_.scale_row(size(), known_, squares > 0.0f ? 1.0f / std::sqrt(squares) : 0.0f, known_);
}

// sums[c] = sum over the strip's nodes i of a F[i], with a = F[i] . x[c] / degree[i], or 1 where x is null.
void CosineGraph::gather_strip(int64_t strip, int64_t count, const float* x, float* sums) const {
  std::fill_n(sums, count * size(), 0.0f);
  const int64_t end = std::min((strip + 1) * kStripRows, n_);
  for (int64_t i = strip * kStripRows; i < end; i += loops_.row_group) {
    const int64_t rows = std::min(loops_.row_group, end - i);
    for (int64_t c = 0; c < count; ++c) {
      float weights[kMaxRows];
      std::fill_n(weights, rows, 1.0f);
      if (x != nullptr) weigh(i, rows, x + c * size(), weights);
      float* out = sums + c * size();
      loops_.add_rows(rows, d_, rows_ + i * d_, d_, weights, out);
      if (size() == d_) continue;
      for (int64_t r = 0; r < rows; ++r) out[d_] += root_offset_ * weights[r];
    }
  }
}

void CosineGraph::weigh(int64_t first, int64_t rows, const float* x, float* weights) const {
  std::fill_n(weights, rows, size() > d_ ? root_offset_ * x[d_] : 0.0f);
  loops_.dot_rows(rows, d_, rows_ + first * d_, d_, x, weights);
  for (int64_t r = 0; r < rows; ++r) weights[r] *= inverse_degrees_[first + r];
}

void CosineGraph::gather(int64_t count, const float* x, float* products) const {
  const int64_t strips = (n_ + kStripRows - 1) / kStripRows;
  const int64_t width = count * size();
  Scratch scratch;
  float* sums = scratch.take<float>(strips * width);
  parallel_for(strips, kStripRows * width / 8, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) gather_strip(s, count, x, sums + s * width);
  });
  float ones[kMaxRows];
  std::fill_n(ones, kMaxRows, 1.0f);
  std::fill_n(products, width, 0.0f);
  for (int64_t s = 0; s < strips; s += loops_.row_group) {
    loops_.add_rows(std::min(loops_.row_group, strips - s), width, sums + s * width, width, ones, products);
  }
}

void CosineGraph::multiply(int64_t count, const float* x, float* products) const {
  gather(count, x, products);
}

void CosineGraph::to_nodes(int64_t count, const float* x, float* out) const {
  const int64_t groups = (n_ + loops_.row_group - 1) / loops_.row_group;
  parallel_for(groups, count * loops_.row_group * d_ / 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * loops_.row_group; i < std::min(end * loops_.row_group, n_);
         i += loops_.row_group) {
      for (int64_t c = 0; c < count; ++c) {
        weigh(i, std::min(loops_.row_group, n_ - i), x + c * size(), out + c * n_ + i);
      }
    }
  });
}

void CosineGraph::from_nodes(int64_t count, const float* x, float* out) const {
  std::fill_n(out, count * size(), 0.0f);
  for (int64_t c = 0; c < count; ++c) {
    const float* weights = x + c * n_;
    float* sums = out + c * size();
    for (int64_t i = 0; i < n_; i += loops_.row_group) {
      loops_.add_rows(std::min(loops_.row_group, n_ - i), d_, rows_ + i * d_, d_, weights + i, sums);
    }
    if (size() > d_) sums[d_] = root_offset_ * simd_.sum(n_, weights);
  }
}

}  // namespace patchcut
