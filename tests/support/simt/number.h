#pragma once

#include <bit>
#include <cstdint>

namespace simt {

// The number formats that the hardware multiplies and adds.

/// 2^exponent, of -1022 to 1023.
inline double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

double from_f16(std::uint16_t bits);
double from_bf16(std::uint16_t bits);
/// e4m3 has no infinity; its one NaN is 0x7F.
double from_e4m3(std::uint8_t bits);

// To the nearest, ties to even.
std::uint16_t to_f16(double value);
std::uint16_t to_bf16(double value);
/// .satfinite: what is too large becomes the largest number, 448.
std::uint8_t to_e4m3(double value);

}  // namespace simt
