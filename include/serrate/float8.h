#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace serrate {

/// e4m3 of the OCP's 8-bit floating point: 4 bits of precision, numbers up to 448 and down to 2^-9,
/// no infinity. Storage only.
struct Float8 {
  std::uint8_t bits = 0;

  Float8() = default;
  /// To nearest, halves to even; beyond the largest the largest; NaN stays NaN (0x7F).
  explicit constexpr Float8(float x) {
    const auto word = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t size = word & 0x7FFFFFFF;
    const auto sign = static_cast<std::uint8_t>(word >> 24 & 0x80);
    if (size > 0x7F800000) {
      bits = 0x7F;
    } else if (size < 121u << 23) {  // 2^-6: a multiple of 2^-9, as the sum with 2^14 has them
      const float multiple = std::bit_cast<float>(size) + 0x1p14f;
      bits = sign | static_cast<std::uint8_t>(std::bit_cast<std::uint32_t>(multiple) & 0xFF);
    } else {
      const std::uint32_t rebiased = size - (120u << 23);
      const std::uint32_t rounded = (rebiased + 0x7FFFF + (rebiased >> 20 & 1)) >> 20;
      bits = sign | static_cast<std::uint8_t>(rounded < 0x7E ? rounded : 0x7E);
    }
  }
  explicit constexpr operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80) << 24;
    const std::uint32_t size = bits & 0x7F;
    if (size < 8) {  // a multiple of 2^-9
      const float multiple = static_cast<float>(size) * 0x1p-9f;
      return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(multiple));
    }
    return std::bit_cast<float>(size == 0x7F ? 0x7FC00000 : sign | ((size << 20) + (120u << 23)));
  }
};

}  // namespace serrate
