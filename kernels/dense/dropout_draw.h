#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/philox_draw.h"
#include "serrate/kernels/dropout.h"

namespace serrate {

/// What the elements of one call have in common.
struct DropoutDraw : PhiloxDraw {
  std::uint32_t threshold;  // words below it drop their element
  float scale;
};

inline DropoutDraw dropout_draw(const DropoutKey& key) {
  return {philox_draw(
              random_bits(key.seed, RandomUse::kDropout, 0, static_cast<std::uint64_t>(key.step)),
              key.site),
          static_cast<std::uint32_t>(std::ldexp(key.rate, 32)), 1 / (1 - key.rate)};
}

}  // namespace serrate
