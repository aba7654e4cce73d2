#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace serrate {

/// The upper half of a float's bits: its range, 8 bits of precision. Storage only.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  /// To nearest, halves to even; NaN stays NaN.
  explicit BFloat16(float x) {
    const auto word = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t rounded = word + 0x7FFF + (word >> 16 & 1);
    bits = static_cast<std::uint16_t>(std::isnan(x) ? word >> 16 | 0x40 : rounded >> 16);
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

}  // namespace serrate
