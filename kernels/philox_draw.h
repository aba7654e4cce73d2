#pragma once

#include <array>
#include <cstdint>

#include "serrate/random.h"

namespace serrate {

/// Random words for the columns of rows: that of a column is word column % 4 of philox4x32 of
/// {row, row >> 32, column / 4, site} by the key.
struct PhiloxDraw {
  std::array<std::uint32_t, 2> key;
  // The key as each round of Philox adds to it.
  std::array<std::array<std::uint64_t, 2>, 10> round_keys;
  std::uint32_t site;
};

inline PhiloxDraw philox_draw(std::uint64_t key, std::uint32_t site) {
  PhiloxDraw draw{
      {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)}, {}, site};
  std::array<std::uint32_t, 2> round_key = draw.key;
  for (auto& k : draw.round_keys) {
    k = {round_key[0], round_key[1]};
    round_key[0] += kPhiloxKeySteps[0];
    round_key[1] += kPhiloxKeySteps[1];
  }
  return draw;
}

}  // namespace serrate
