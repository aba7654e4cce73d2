#pragma once

#include "kernels/cuda/fours.cuh"
#include "kernels/dense/dropout_draw.h"

namespace serrate {

/// Dropout as kernels see it: a thread draws the four words of its four columns at once
/// (dropout.h).
struct Dropout {
  DropoutDraw draw;
  const std::int64_t* token_ids;
  explicit Dropout(const DropoutKey& key)
      : draw(dropout_draw(key)), token_ids(key.token_ids.device_data()) {}

  /// before + x keep / (1 - rate) in columns c to c + 3 of row r.
  __device__ Four add(Four x, const Four& before, std::int64_t r, std::int64_t c) const {
    if (draw.threshold != 0) {
      const auto token = static_cast<std::uint64_t>(token_ids[r]);
      const auto words =
          philox4x32({static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(token >> 32),
                      static_cast<std::uint32_t>(c / 4), draw.site},
                     draw.key);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (words[k] < draw.threshold) x.value[k] = 0;
      }
    }
    return map_four([this](float a, float b) { return fmaf(a, draw.scale, b); }, x, before);
  }
};

}  // namespace serrate
