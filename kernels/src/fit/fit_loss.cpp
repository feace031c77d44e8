#include "fit/fit_loss.h"

#include <cmath>

#include "cpu/interrupt.h"
#include "cpu/scratch.h"
#include "patchcut/patchcut.h"

namespace patchcut {
namespace {

double add_blocks(const float* sums, int64_t blocks, int64_t stride) {
  double total = 0.0;
  for (int64_t block = 0; block < blocks; ++block) total += sums[block * stride];
  return total;
}

// | G / |G| - I / sqrt(k) | for G = S^T S; its gradient by S is S mix.
double measure_balance(const LossSums& sums, int64_t k, float* mix) {
  const int64_t count = k * k;
  Scratch scratch;
  double* gram = scratch.take<double>(count);
  double* excess = scratch.take<double>(count);
  double squares = 0.0;
  InterruptPoll poll;
  for (int64_t e = 0; e < count; ++e) {
    poll.spend(8 * sums.blocks);
    gram[e] = add_blocks(sums.gram + e, sums.blocks, count);
    squares += gram[e] * gram[e];
  }
  const double size = std::sqrt(squares);
  const double even = 1.0 / std::sqrt(static_cast<double>(k));
  double excess_squares = 0.0;
  double overlap = 0.0;
  for (int64_t e = 0; e < count; ++e) {
    excess[e] = gram[e] / size - (e % (k + 1) == 0 ? even : 0.0);
    excess_squares += excess[e] * excess[e];
    overlap += excess[e] * gram[e];
  }
  const double balance = std::sqrt(excess_squares);
  for (int64_t e = 0; e < count; ++e) {
    const double slope = 2.0 * (excess[e] - overlap / squares * gram[e]) / (balance * size);
    mix[e] = balance > 0.0 ? static_cast<float>(slope) : 0.0f;
  }
  return balance;
}

}  // namespace

double measure_loss(int32_t loss, const LossSums& sums, int64_t k, LossSlope& slope) {
  const double inside = add_blocks(sums.inside, sums.blocks, 1);
  if (loss == PATCHCUT_CC) {
    slope.near_weight = -2.0f;
    return -inside;
  }
  const double balance = measure_balance(sums, k, slope.mix);
  const double volume = add_blocks(sums.volume, sums.blocks, 1);
  const bool any_edge = volume > 0.0;
  slope.near_weight = any_edge ? static_cast<float>(-2.0 / volume) : 0.0f;
  slope.degree_weight = any_edge ? static_cast<float>(2.0 * inside / volume / volume) : 0.0f;
  return any_edge ? balance - inside / volume : balance;
}

}  // namespace patchcut
