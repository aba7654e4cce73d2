#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "serrate/kernels/dropout.h"
#include "serrate/random.h"

namespace serrate {

/// What the elements of one call have in common.
struct DropoutDraw {
  std::array<std::uint32_t, 2> key;
  // The key as each round of Philox adds to it.
  std::array<std::array<std::uint64_t, 2>, 10> round_keys;
  std::uint32_t site;
  std::uint32_t threshold;  // words below it drop their element
  float scale;
};

inline DropoutDraw dropout_draw(const DropoutKey& key) {
  const std::uint64_t bits =
      random_bits(key.seed, RandomUse::kDropout, 0, static_cast<std::uint64_t>(key.step));
  DropoutDraw draw{{static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)},
                   {},
                   key.site,
                   static_cast<std::uint32_t>(std::ldexp(key.rate, 32)),
                   1 / (1 - key.rate)};
  std::array<std::uint32_t, 2> round_key = draw.key;
  for (auto& k : draw.round_keys) {
    k = {round_key[0], round_key[1]};
    round_key[0] += kPhiloxKeySteps[0];
    round_key[1] += kPhiloxKeySteps[1];
  }
  return draw;
}

}  // namespace serrate
