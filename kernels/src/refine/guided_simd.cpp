#include "refine/guided_simd.h"

#include "cpu/simd_vector.h"

namespace patchcut::PATCHCUT_ISA {
namespace {

struct Guide {
  Vec c[3];
};

inline Guide load_guide(const float* row, int64_t stride) {
  return {{load(row), load(row + stride), load(row + 2 * stride)}};
}

inline void add_to(float* x, Vec v) { store(x, load(x) + v); }

struct Table final : GuidedTable {
  void split_channels(int64_t count, const uint8_t* pixels, int8_t* planes, int64_t stride) const override {
    int8_t* __restrict first = planes;
    int8_t* __restrict second = planes + stride;
    int8_t* __restrict third = planes + 2 * stride;
    // The sign bit turned over is 128 subtracted.
    for (int64_t x = 0; x < count; ++x) {
      first[x] = static_cast<int8_t>(pixels[3 * x] ^ 0x80);
      second[x] = static_cast<int8_t>(pixels[3 * x + 1] ^ 0x80);
      third[x] = static_cast<int8_t>(pixels[3 * x + 2] ^ 0x80);
    }
  }

  // A plain loop: compilers turn bytes into floats well there, and not in vector types.
  void widen_planes(int64_t count, const int8_t* planes, int64_t stride, float* out) const override {
    for (int c = 0; c < 3; ++c) {
      const int8_t* __restrict source = planes + c * stride;
      float* __restrict target = out + c * stride;
      for (int64_t x = 0; x < count; ++x) target[x] = static_cast<float>(source[x]);
    }
  }

  void indicator_row(int64_t count, const int32_t* labels, int32_t label, float* out) const override {
    for (int64_t x = 0; x < count; ++x) out[x] = labels[x] == label ? 1.0f : 0.0f;
  }

  void slide_guide_sums(int64_t count, float weight, const float* enter, const float* leave, float* sums,
                        int64_t stride) const override {
    for (int64_t x = 0; x < count; x += kLanes) {
      const Guide in = load_guide(enter + x, stride);
      const Guide out = load_guide(leave + x, stride);
      float* sum = sums + x;
      for (int i = 0; i < 3; ++i, sum += stride) add_to(sum, (in.c[i] - out.c[i]) * weight);
      for (int i = 0; i < 3; ++i) {
        for (int j = i; j < 3; ++j, sum += stride) {
          add_to(sum, (in.c[i] * in.c[j] - out.c[i] * out.c[j]) * weight);
        }
      }
    }
  }

  void slide_map_sums(int64_t count, float weight, const float* enter, const float* leave,
                      int64_t guide_stride, const float* enter_map, const float* leave_map, float* sums,
                      int64_t stride) const override {
    for (int64_t x = 0; x < count; x += kLanes) {
      const Guide in = load_guide(enter + x, guide_stride);
      const Guide out = load_guide(leave + x, guide_stride);
      const Vec p = load(enter_map + x) * weight;
      const Vec q = load(leave_map + x) * weight;
      for (int i = 0; i < 3; ++i) add_to(sums + x + i * stride, in.c[i] * p - out.c[i] * q);
      add_to(sums + x + 3 * stride, p - q);
    }
  }

  void slide_sums(int64_t count, float weight, const float* enter, const float* leave,
                  float* sums) const override {
    for (int64_t x = 0; x < count; x += kLanes)
      add_to(sums + x, (load(enter + x) - load(leave + x)) * weight);
  }

  void box_row(int64_t count, int64_t inner, float edge, const float* row, float* work,
               float* out) const override {
    int64_t terms = 2 * inner + 1;
    const float* last = row + 2 * inner + 2;
    const Vec edges = Vec{} + edge;
    for (int64_t x = 0; x < count; x += kLanes) store(out + x, (load(row + x) + load(last + x)) * edges);
    // Sums of `size` neighbours, each four times as wide as the ones before: a window of 17 takes two passes.
    const float* part = row + 1;
    int64_t length = count + 2 * inner;
    for (int64_t size = 1;; size *= 4, terms /= 4) {
      const int64_t here = terms < 8 ? terms : terms % 4;
      for (int64_t x = 0; x < count; x += kLanes) {
        Vec total = load(out + x);
        for (int64_t t = 0; t < here; ++t) total += load(part + x + t * size);
        store(out + x, total);
      }
      if (here == terms) return;
      part += here * size;
      length -= here * size + 3 * size;
      for (int64_t x = 0; x < length; x += kLanes) {
        store(work + x, (load(part + x) + load(part + x + size)) +
                            (load(part + x + 2 * size) + load(part + x + 3 * size)));
      }
      part = work;
    }
  }

  void factor_guide_row(int64_t count, float scale, float eps, const float* sums, float* factor,
                        int64_t stride) const override {
    for (int64_t x = 0; x < count; x += kLanes) {
      const float* sum = sums + x;
      float* out = factor + x;
      Vec mean[3];
      for (int i = 0; i < 3; ++i, sum += stride, out += stride) store(out, mean[i] = load(sum) * scale);
      Vec s[6];
      for (int i = 0, at = 0; i < 3; ++i) {
        for (int j = i; j < 3; ++j, ++at, sum += stride) s[at] = load(sum) * scale - mean[i] * mean[j];
      }
      // L D L^T of the covariance and eps on its diagonal; rounding may take a variance of 0 below it.
      const auto inverse = [eps](Vec pivot) { return 1.0f / (pivot < eps ? Vec{} + eps : pivot); };
      const Vec d0 = inverse(s[0] + eps);
      const Vec l10 = s[1] * d0;
      const Vec l20 = s[2] * d0;
      const Vec d1 = inverse(s[3] + eps - l10 * s[1]);
      const Vec t = s[4] - l10 * s[2];
      const Vec l21 = t * d1;
      const Vec d2 = inverse(s[5] + eps - l20 * s[2] - l21 * t);
      const Vec made[6] = {d0, d1, d2, l10, l20, l21};
      for (int i = 0; i < 6; ++i) store(out + i * stride, made[i]);
    }
  }

  void solve_row(int64_t count, float scale, const float* factor, int64_t factor_stride, const float* sums,
                 int64_t stride, float* coefficients, int64_t out_stride) const override {
    for (int64_t x = 0; x < count; x += kLanes) {
      const auto at = [&](int plane) { return load(factor + x + plane * factor_stride); };
      const Vec mean_p = load(sums + x + 3 * stride) * scale;
      const auto covariance = [&](int i) { return load(sums + x + i * stride) * scale - at(i) * mean_p; };
      const Vec l10 = at(6);
      const Vec l20 = at(7);
      const Vec l21 = at(8);
      const Vec y0 = covariance(0);
      const Vec y1 = covariance(1) - l10 * y0;
      const Vec y2 = covariance(2) - l20 * y0 - l21 * y1;
      const Vec a2 = y2 * at(5);
      const Vec a1 = y1 * at(4) - l21 * a2;
      const Vec a0 = y0 * at(3) - l10 * a1 - l20 * a2;
      float* out = coefficients + x;
      store(out, a0);
      store(out + out_stride, a1);
      store(out + 2 * out_stride, a2);
      store(out + 3 * out_stride, mean_p - a0 * at(0) - a1 * at(1) - a2 * at(2));
    }
  }

  void apply_row(int64_t count, float scale, const float* guide, int64_t guide_stride, const float* mean,
                 int64_t stride, float* out) const override {
    for_each_vector(count, [&](int64_t x, auto, auto put) {
      const Guide color = load_guide(guide + x, guide_stride);
      Vec value = load(mean + x + 3 * stride);
      for (int i = 0; i < 3; ++i) value += load(mean + x + i * stride) * color.c[i];
      put(out + x, value * scale);
    });
  }

  void blend_rows(int64_t count, const float* low, const float* high, float low_weight, float high_weight,
                  float* out) const override {
    for (int64_t x = 0; x < count; x += kLanes) {
      store(out + x, load(low + x) * low_weight + load(high + x) * high_weight);
    }
  }

  void upsample_apply_row(int64_t count, const int32_t* cells, const float* fractions, const float* guide,
                          int64_t guide_stride, int64_t first_cell, const float* mean, int64_t stride,
                          float* out) const override {
    for_each_vector(count, [&](int64_t x, auto, auto put) {
      IntVec cell = load(cells + x);
      // A vector of pixels spans fewer cells than it has lanes: cells are two pixels wide at least.
      const float* first = mean + (cells[x] - first_cell);
      cell -= cells[x];
      const Vec fraction = load(fractions + x);
      const auto plane = [&](int i) {
        const Vec values = load(first + i * stride);
        const Vec low = __builtin_shuffle(values, cell);
        return low + (__builtin_shuffle(values, cell + 1) - low) * fraction;
      };
      const Guide color = load_guide(guide + x, guide_stride);
      Vec value = plane(3);
      for (int i = 0; i < 3; ++i) value += plane(i) * color.c[i];
      put(out + x, value);
    });
  }

  void argmax_row(int64_t count, const float* value, int32_t label, float* best, float* rest,
                  int32_t* labels) const override {
    for (int64_t x = 0; x < count; ++x) {
      const bool wins = value[x] > best[x];
      best[x] = wins ? value[x] : best[x];
      labels[x] = wins ? label : labels[x];
      rest[x] -= value[x];
    }
  }

  void argmax_rest_row(int64_t count, const float* best, const float* rest, int32_t label,
                       int32_t* labels) const override {
    for (int64_t x = 0; x < count; ++x) {
      const bool wins = rest[x] > best[x] || (rest[x] == best[x] && label < labels[x]);
      labels[x] = wins ? label : labels[x];
    }
  }
};
constexpr Table table{};

}  // namespace
}  // namespace patchcut::PATCHCUT_ISA

const patchcut::GuidedTable& patchcut::GuidedTable::PATCHCUT_ISA() { return PATCHCUT_ISA::table; }
