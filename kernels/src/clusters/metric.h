#pragma once

#include <string>

#include "cpu/errors.h"
#include "patchcut/patchcut.h"

namespace patchcut {

inline void require_metric(const char* op, int32_t metric) {
  require(metric == PATCHCUT_EUCLIDEAN || metric == PATCHCUT_COSINE_DISTANCE, op,
          "metric must be PATCHCUT_EUCLIDEAN or PATCHCUT_COSINE_DISTANCE, got " + std::to_string(metric));
}

}  // namespace patchcut
