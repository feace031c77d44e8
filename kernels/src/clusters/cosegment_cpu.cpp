// Products of int16 rows, which take half the time of those of floats, find for each patch and image the few
// patches that may resemble it most; the dot products of these, as floats, tell. What the rounding to int16
// may have moved is known of every row, so that none is missed. A pair of images is looked at once, for both.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "clusters/cosegment.h"
#include "clusters/simd.h"
#include "cpu/errors.h"
#include "cpu/feature_rows.h"
#include "cpu/interrupt.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace patchcut {
namespace {

constexpr const char* kOp = "cosegment";
constexpr float kInfinity = std::numeric_limits<float>::infinity();
// A unit row's int16: sums of their products are below 2^31 (Cauchy and Schwarz), whatever the rounding.
constexpr float kScale = 32767.0f;
// Rows of an image whose products with all of another are made at once: 512 KB of them.
constexpr int64_t kProducts = int64_t{1} << 17;
constexpr int64_t kLeastRows = 32;

// Patches that count, one image after the other.
struct Patches {
  int64_t d;
  int64_t cells;  // pairs of int16 that hold a row
  int64_t k;
  int64_t count;
  int64_t* first;         // [k + 1], the first patch of each image
  int64_t* padded_first;  // [k + 1], its first column; images start with a panel
  int64_t* rows;          // [count], in the features
  float* unit;            // [count, d]
  int32_t* pairs;         // [count, cells], unit as int16
  int32_t* packed;        // [cells, columns] of pairs, transposed, in panels
  float* weights;         // [columns], NaN in the padding
  float* error;           // [k], the largest distance of a row to that of its int16, with some to spare

  int64_t patches_of(int64_t image) const { return first[image + 1] - first[image]; }
  int64_t columns_of(int64_t image) const { return padded_first[image + 1] - padded_first[image]; }
};

struct Job {
  const SimdTable& simd;
  const ClusterTable& loops;
  const Patches& patches;
  float* maxima;  // [k, count], of each patch in each image
};

// ---- the patches

int64_t start_of(const ImagePatches& all, int64_t image) {
  return all.offsets != nullptr ? all.offsets[image] : image * (all.n / std::max<int64_t>(1, all.k));
}

void require_offsets(const ImagePatches& all) {
  if (all.offsets == nullptr) return;
  require(std::is_sorted(all.offsets, all.offsets + all.k + 1) && all.offsets[0] == 0 &&
              all.offsets[all.k] == all.n,
          kOp, "offsets must start with 0, never fall and end with " + std::to_string(all.n));
}

void require_weights(int64_t n, const float* weights) {
  if (weights == nullptr) return;
  for (int64_t i = 0; i < n; ++i) {
    require(weights[i] >= 0.0f && weights[i] <= 1.0f, kOp,
            "weights must lie in [0, 1], got " + std::to_string(weights[i]));
  }
}

// Which patches count, and where their rows come to lie.
void choose_patches(const ImagePatches& all, const float* weights, int64_t panel, Patches& chosen) {
  int64_t padded = 0;
  for (int64_t image = 0; image < all.k; ++image) {
    chosen.first[image] = chosen.count;
    chosen.padded_first[image] = padded;
    for (int64_t i = start_of(all, image); i < start_of(all, image + 1); ++i) {
      if (weights == nullptr || weights[i] > 0.0f) chosen.rows[chosen.count++] = i;
    }
    padded += (chosen.count - chosen.first[image] + panel - 1) / panel * panel;
  }
  chosen.first[all.k] = chosen.count;
  chosen.padded_first[all.k] = padded;
}

// One row of the features as floats: in `room` [d] where they are halves.
const float* read_row(const SimdTable& simd, const void* features, int32_t dtype, int64_t d, int64_t row,
                      float* room) {
  if (dtype == PATCHCUT_FLOAT32) return static_cast<const float*>(features) + row * d;
  simd.half_to_float(d, static_cast<const uint16_t*>(features) + row * d, room);
  return room;
}

bool all_finite(const SimdTable& simd, const void* features, int32_t dtype, int64_t n, int64_t d) {
  std::atomic<bool> finite{true};
  parallel_for(n, d / 8, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    float* room = scratch.take<float>(d);
    for (int64_t i = begin; i < end; ++i) {
      if (simd.all_finite(d, read_row(simd, features, dtype, d, i, room))) continue;
      finite.store(false, std::memory_order_relaxed);
    }
  });
  return finite;
}

// Unit rows of an image, and the same as int16; returns the largest square of a row's error.
float round_rows(const Job& job, const void* features, int32_t dtype, int64_t image) {
  const Patches& patches = job.patches;
  Scratch scratch;
  float* room = scratch.take<float>(patches.d);
  float largest = 0.0f;
  for (int64_t p = patches.first[image]; p < patches.first[image + 1]; ++p) {
    float* unit = patches.unit + p * patches.d;
    int32_t* pairs = patches.pairs + p * patches.cells;
    normalize_row(job.simd, patches.d, read_row(job.simd, features, dtype, patches.d, patches.rows[p], room),
                  unit);
    pairs[patches.cells - 1] = 0;
    largest =
        std::max(largest, job.loops.quantize_row(patches.d, unit, kScale, reinterpret_cast<int16_t*>(pairs)));
  }
  return largest;
}

void pack_image(const Job& job, const float* weights, int64_t image) {
  const Patches& patches = job.patches;
  const int64_t panel = job.simd.panel;
  const int64_t first = patches.first[image];
  const int64_t column = patches.padded_first[image];
  for (int64_t j = 0; j < patches.columns_of(image); ++j) {
    const bool inside = j < patches.patches_of(image);
    const float given = inside && weights != nullptr ? weights[patches.rows[first + j]] : 1.0f;
    patches.weights[column + j] = inside ? given : std::numeric_limits<float>::quiet_NaN();
  }
  for (int64_t j = 0; j < patches.patches_of(image); j += panel) {
    // A pair is moved as the four bytes that it is.
    job.simd.pack_transposed(std::min(panel, patches.patches_of(image) - j), patches.cells,
                             reinterpret_cast<const float*>(patches.pairs + (first + j) * patches.cells),
                             patches.cells,
                             reinterpret_cast<float*>(patches.packed + (column + j) * patches.cells));
  }
}

void read_patches(const Job& job, const void* features, int32_t dtype, const float* weights) {
  const Patches& patches = job.patches;
  const int64_t patches_of_image = patches.count / std::max<int64_t>(1, patches.k) + 1;
  parallel_for(patches.k, patches_of_image * patches.d, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) {
      const float squares = round_rows(job, features, dtype, image);
      patches.error[image] = 1.001f * std::sqrt(squares) + 1e-6f;
      pack_image(job, weights, image);
    }
  });
}

// ---- the pairs of images

// By how much a product of int16 may be above the float32 dot product of its rows, in units of the former.
float rounding_of(const Patches& patches, int64_t i, int64_t j) {
  const float of_rows = patches.error[i] + patches.error[j] + patches.error[i] * patches.error[j];
  const float of_sums = static_cast<float>(patches.d) * 0x1p-24f + 2e-6f;
  return (of_rows + of_sums) * kScale * kScale;
}

void raise(float& maximum, float value) { maximum = std::max(maximum, value); }

// One pair of images, and what is known of it.
struct PairOfImages {
  int64_t i;
  int64_t j;
  int64_t columns;       // of image j
  int32_t* products;     // [rows, columns], of some rows of image i
  float* column_maxima;  // [columns], of products of the rows so far
  float* thresholds;     // [columns], from where on a product may be the largest
  int32_t* found;        // [columns]
};

ProductRow row_of(const Job& job, const PairOfImages& pair, int64_t row, int64_t r) {
  const Patches& patches = job.patches;
  const float weight = patches.weights[patches.padded_first[pair.i] + row];
  return {pair.products + r * pair.columns, pair.columns, weight,
          patches.weights + patches.padded_first[pair.j]};
}

void multiply_rows(const Job& job, const PairOfImages& pair, int64_t row, int64_t rows) {
  const Patches& patches = job.patches;
  const int32_t* a = patches.pairs + (patches.first[pair.i] + row) * patches.cells;
  const int32_t* packed = patches.packed + patches.padded_first[pair.j] * patches.cells;
  for (int64_t j = 0; j < pair.columns; j += job.simd.panel) {
    job.simd.gemm_pairs(rows, patches.cells, a, patches.cells, packed + j * patches.cells, pair.products + j,
                        pair.columns);
  }
}

// Raises the maxima of row `row` of image i and of image j's patches by what `pair.found` names.
void raise_maxima(const Job& job, const PairOfImages& pair, int64_t row, int64_t count) {
  const Patches& patches = job.patches;
  const int64_t p = patches.first[pair.i] + row;
  const float* weights = patches.weights + patches.padded_first[pair.j];
  const float weight = patches.weights[patches.padded_first[pair.i] + row];
  for (int64_t t = 0; t < count; ++t) {
    const int64_t column = pair.found[t];
    const int64_t q = patches.first[pair.j] + column;
    const float cosine = job.loops.dot(patches.d, patches.unit + p * patches.d, patches.unit + q * patches.d);
    raise(job.maxima[pair.j * patches.count + p], cosine * weights[column]);
    raise(job.maxima[pair.i * patches.count + q], cosine * weight);
  }
}

// `rows` rows of image i from `row` on.
void compare_rows(const Job& job, const PairOfImages& pair, int64_t row, int64_t rows) {
  Scratch scratch;
  float* row_maxima = scratch.take<float>(rows);
  multiply_rows(job, pair, row, rows);
  for (int64_t r = 0; r < rows; ++r) {
    row_maxima[r] = job.loops.raise_maxima(row_of(job, pair, row + r, r), pair.column_maxima);
  }
  const float apart = 2.0f * rounding_of(job.patches, pair.i, pair.j);
  const int64_t inside = pair.i == pair.j ? 0 : job.patches.patches_of(pair.j);  // rows alone tell all of one
  for (int64_t j = 0; j < inside; ++j) pair.thresholds[j] = pair.column_maxima[j] - apart;
  std::fill(pair.thresholds + inside, pair.thresholds + pair.columns, kInfinity);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t count = job.loops.near_maxima(row_of(job, pair, row + r, r), row_maxima[r] - apart,
                                                pair.thresholds, pair.found);
    raise_maxima(job, pair, row + r, count);
  }
}

void compare_images(const Job& job, int64_t i, int64_t j) {
  const Patches& patches = job.patches;
  const int64_t columns = patches.columns_of(j);
  const int64_t all = patches.patches_of(i);
  if (columns == 0 || all == 0) return;
  const int64_t most = std::min(all, std::max(kLeastRows, kProducts / columns));
  Scratch scratch;
  const PairOfImages pair{i,
                          j,
                          columns,
                          scratch.take<int32_t>(most * columns),
                          scratch.take<float>(columns),
                          scratch.take<float>(columns),
                          scratch.take<int32_t>(columns)};
  std::fill_n(pair.column_maxima, columns, -kInfinity);
  InterruptPoll poll;
  for (int64_t row = 0; row < all; row += most) {
    const int64_t rows = std::min(most, all - row);
    compare_rows(job, pair, row, rows);
    poll.spend(rows * columns * patches.cells / 8);
  }
}

void compare_all(const Job& job) {
  const Patches& patches = job.patches;
  std::fill_n(job.maxima, patches.k * patches.count, -kInfinity);
  const int64_t of_image = patches.count / std::max<int64_t>(1, patches.k) + 1;
  const int64_t pairs = patches.k * (patches.k + 1) / 2;
  parallel_for(pairs, of_image * of_image * patches.cells / 8 + 64, [&](int64_t begin, int64_t end) {
    int64_t i = 0;
    int64_t j = begin;
    while (j >= patches.k - i) j -= patches.k - i++;
    j += i;
    for (int64_t t = begin; t < end; ++t) {
      compare_images(job, i, j);
      if (++j == patches.k) j = ++i;
    }
  });
}

// ---- results

// The mean over the images that have patches; -1 of patches that do not count.
void write_scores(const Job& job, int64_t n, float* scores) {
  const Patches& patches = job.patches;
  std::fill_n(scores, n, -1.0f);
  int64_t images = 0;
  for (int64_t image = 0; image < patches.k; ++image) images += patches.patches_of(image) > 0;
  parallel_for(patches.count, patches.k, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    double* totals = scratch.take<double>(end - begin);
    std::fill_n(totals, end - begin, 0.0);
    for (int64_t image = 0; image < patches.k; ++image) {
      if (patches.patches_of(image) == 0) continue;
      const float* maxima = job.maxima + image * patches.count;
      for (int64_t p = begin; p < end; ++p) totals[p - begin] += maxima[p];
    }
    for (int64_t p = begin; p < end; ++p) {
      scores[patches.rows[p]] = static_cast<float>(totals[p - begin] / static_cast<double>(images));
    }
  });
}

// The first of each image's best patches, and the direction of their mean.
void write_seeds(const Patches& patches, const ImagePatches& all, const float* scores, int32_t* seeds,
                 float* embedding) {
  Scratch scratch;
  double* sums = scratch.take<double>(patches.d);
  std::fill_n(sums, patches.d, 0.0);
  for (int64_t image = 0; image < patches.k; ++image) {
    seeds[image] = -1;
    if (patches.patches_of(image) == 0) continue;
    int64_t best = patches.first[image];
    for (int64_t p = best; p < patches.first[image + 1]; ++p) {
      if (scores[patches.rows[p]] > scores[patches.rows[best]]) best = p;
    }
    seeds[image] = static_cast<int32_t>(patches.rows[best] - start_of(all, image));
    for (int64_t c = 0; c < patches.d; ++c) sums[c] += patches.unit[best * patches.d + c];
  }
  double squares = 0.0;
  for (int64_t c = 0; c < patches.d; ++c) squares += sums[c] * sums[c];
  const double scale = squares > 0.0 ? 1.0 / std::sqrt(squares) : 0.0;
  for (int64_t c = 0; c < patches.d; ++c) embedding[c] = static_cast<float>(sums[c] * scale);
}

}  // namespace

void cosegment_cpu(const void* features, int32_t dtype, const ImagePatches& all, const float* weights,
                   float* scores, int32_t* seeds, float* embedding) {
  const SimdTable& table = simd();
  require_offsets(all);
  require_weights(all.n, weights);
  require_finite(all_finite(table, features, dtype, all.n, all.d), kOp, "features");
  Scratch scratch;
  Patches patches{};
  patches.d = all.d;
  patches.cells = (all.d + 1) / 2;
  patches.k = all.k;
  patches.first = scratch.take<int64_t>(all.k + 1);
  patches.padded_first = scratch.take<int64_t>(all.k + 1);
  patches.rows = scratch.take<int64_t>(all.n);
  choose_patches(all, weights, table.panel, patches);
  const int64_t columns = patches.padded_first[all.k];
  patches.unit = scratch.take<float>(patches.count * patches.d);
  patches.pairs = scratch.take<int32_t>(patches.count * patches.cells);
  patches.packed = scratch.take<int32_t>(columns * patches.cells);
  patches.weights = scratch.take<float>(columns);
  patches.error = scratch.take<float>(all.k);
  const Job job{table, table.get<ClusterTable>(), patches, scratch.take<float>(all.k * patches.count)};
  read_patches(job, features, dtype, weights);
  compare_all(job);
  write_scores(job, all.n, scores);
  write_seeds(patches, all, scores, seeds, embedding);
}

}  // namespace patchcut
