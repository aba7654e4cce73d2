#pragma once

// The simulated device's form of kernels/cuda/reciprocal.cuh, which says what it does.
#include <cmath>

namespace serrate {

inline float reciprocal_flushed(float x) {
  const auto flush = [](float y) { return std::abs(y) < 0x1p-126f ? std::copysign(0.0f, y) : y; };
  return flush(1 / flush(x));
}

}  // namespace serrate
