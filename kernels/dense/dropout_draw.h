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

/// The arguments' checks, for ops that drop within other work.
void check_dropout_forward(const DropoutKey& key, const InputMatrix& x,
                           DeviceMatrix<const float> residual, DeviceMatrix<float> y,
                           Device device);
void check_dropout_backward(const DropoutKey& key, DeviceMatrix<const float> d_y,
                            const OutputMatrix& d_x, Device device);

}  // namespace serrate
