#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace serrate {

/// IEEE 754 binary16: 11 bits of precision, numbers up to 65,504 and down to 2^-24. Storage only.
struct Float16 {
  std::uint16_t bits = 0;

  Float16() = default;
  /// To nearest, halves to even; beyond the largest infinite; NaN stays NaN.
  explicit Float16(float x) {
    const auto word = std::bit_cast<std::uint32_t>(x);
    const auto sign = static_cast<std::uint16_t>(word >> 16 & 0x8000);
    const float size = std::abs(x);
    if (std::isnan(x)) {
      bits = sign | 0x7E00;
    } else if (size >= 65520) {
      bits = sign | 0x7C00;
    } else if (size < 0x1p-14f) {  // a multiple of 2^-24, as the sum with 1/2 has them
      bits = sign | static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(size + 0.5f) & 0xFFFF);
    } else {
      const std::uint32_t rebiased = (word & 0x7FFFFFFF) - (112u << 23);
      const std::uint32_t rounded = rebiased + 0xFFF + (rebiased >> 13 & 1);
      bits = sign | static_cast<std::uint16_t>(rounded >> 13);
    }
  }
  explicit operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
    const std::uint32_t size = bits & 0x7FFF;
    if (size < 0x400) {  // a multiple of 2^-24
      const auto multiple = static_cast<float>(size) * 0x1p-24f;
      return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(multiple));
    }
    const std::uint32_t exponent = size >= 0x7C00 ? 224 : 112;  // infinity and NaN stay so
    return std::bit_cast<float>(sign | ((size << 13) + (exponent << 23)));
  }
};

}  // namespace serrate
