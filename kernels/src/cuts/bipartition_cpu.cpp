#include <algorithm>
#include <numeric>

#include "cpu/scratch.h"
#include "cuts/bipartition.h"
#include "cuts/ncut.h"
#include "masks/connected_components.h"

namespace patchcut {
namespace {

void keep_component(int64_t height, int64_t width, int64_t seed, uint8_t* mask) {
  const int64_t n = height * width;
  Scratch scratch;
  int32_t* ids = scratch.take<int32_t>(n);
  std::copy_n(mask, n, ids);
  connected_components_cpu(ids, height, width, false, 1, ids, nullptr);
  for (int64_t i = 0; i < n; ++i) mask[i] = ids[i] == ids[seed];
}

}  // namespace

void bipartition_cpu(const float* features, int64_t height, int64_t width, int64_t d, const float* start,
                     const patchcut_ncut_params& params, bool connected, uint8_t* mask, int32_t* seed,
                     float* vector) {
  const int64_t n = height * width;
  float eigenvalue = 0.0f;
  float residual = 0.0f;
  Scratch scratch;
  if (vector == nullptr) vector = scratch.take<float>(n);
  ncut_cpu("bipartition", features, n, d, 1, start, params, &eigenvalue, vector, &residual, nullptr);
  // The entry of largest magnitude is positive, so that the largest is it.
  *seed = static_cast<int32_t>(std::max_element(vector, vector + n) - vector);
  const double mean = std::accumulate(vector, vector + n, 0.0) / static_cast<double>(n);
  const bool above = vector[*seed] > mean;  // unless the vector is constant
  for (int64_t i = 0; i < n; ++i) mask[i] = (vector[i] > mean) == above;
  if (connected) keep_component(height, width, *seed, mask);
}

}  // namespace patchcut
