#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace serrate {

/// The last of `count` ascending values that is at most `value`; the first one is.
template <typename ValueAt>
__device__ std::int64_t last_at_most(std::int64_t count, std::int64_t value, ValueAt value_at) {
  std::int64_t low = 0, high = count;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    if (value_at(middle) <= value) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace serrate
