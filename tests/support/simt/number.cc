#include "tests/support/simt/number.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace simt {
namespace {

// The magnitude of a finite value in units of the format's last place there, as exponent field and
// mantissa together: rounding up to the next power of two carries into the exponent.
std::uint32_t rounded(double magnitude, int mantissa_bits, int bias) {
  if (magnitude == 0) return 0;
  const int exponent = std::max(std::ilogb(magnitude), 1 - bias);
  const double units = std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent));
  return (static_cast<std::uint32_t>(exponent + bias - 1) << mantissa_bits) +
         static_cast<std::uint32_t>(units);
}

double value_of(std::uint32_t bits, int mantissa_bits, int bias) {
  const auto exponent = static_cast<int>(bits >> mantissa_bits);
  const auto mantissa = static_cast<double>(bits & ((1u << mantissa_bits) - 1));
  const double one = 1u << mantissa_bits;
  return exponent == 0 ? mantissa * power_of_two(1 - bias - mantissa_bits)
                       : (one + mantissa) * power_of_two(exponent - bias - mantissa_bits);
}

}  // namespace

double from_f16(std::uint16_t bits) {
  const std::uint32_t magnitude = bits & 0x7FFF;
  if (magnitude > 0x7C00) return std::nan("");
  const double value = magnitude == 0x7C00 ? HUGE_VAL : value_of(magnitude, 10, 15);
  return bits >> 15 ? -value : value;
}

double from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

double from_e4m3(std::uint8_t bits) {
  const std::uint32_t magnitude = bits & 0x7F;
  if (magnitude == 0x7F) return std::nan("");
  return bits >> 7 ? -value_of(magnitude, 3, 7) : value_of(magnitude, 3, 7);
}

std::uint16_t to_f16(double value) {
  if (std::isnan(value)) return 0x7FFF;
  const std::uint32_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::abs(value);
  const std::uint32_t bits = std::isinf(magnitude) ? 0x7C00 : rounded(magnitude, 10, 15);
  return static_cast<std::uint16_t>(sign | (bits > 0x7C00 ? 0x7C00 : bits));
}

std::uint16_t to_bf16(double value) {
  if (std::isnan(value)) return 0x7FFF;
  const std::uint32_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::abs(value);
  const std::uint32_t bits = std::isinf(magnitude) ? 0x7F80 : rounded(magnitude, 7, 127);
  return static_cast<std::uint16_t>(sign | (bits > 0x7F80 ? 0x7F80 : bits));
}

std::uint8_t to_e4m3(double value) {
  if (std::isnan(value)) return 0x7F;
  const std::uint32_t sign = std::signbit(value) ? 0x80 : 0;
  const double magnitude = std::abs(value);
  const std::uint32_t bits = magnitude > 448 ? 0x7E : rounded(magnitude, 3, 7);
  return static_cast<std::uint8_t>(sign | (bits > 0x7E ? 0x7E : bits));
}

}  // namespace simt
