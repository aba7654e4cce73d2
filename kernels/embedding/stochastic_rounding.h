#pragma once

#include <cstdint>

#include "kernels/philox_draw.h"
#include "serrate/kernels/embedding_update.h"

// Rounds up or down at random, up with a probability that is how far the value is from the one
// below: so the mean is the value, and changes smaller than the spacing of a type are not lost.
// (Float16's mean is less by under 2^-45 for values below 2^-22, whose last bits are cut off.)
// Values beyond the largest finite one become that; infinities and NaN stay so.
namespace serrate {

/// The draws of a step's update; the rows and columns of counters are those of the whole table.
inline PhiloxDraw rounding_draw(const TableRounding& rounding, std::int64_t step) {
  return philox_draw(random_bits(rounding.seed, RandomUse::kRounding, rounding.table,
                                 static_cast<std::uint64_t>(step)),
                     static_cast<std::uint32_t>(RandomUse::kRounding));
}

constexpr std::uint32_t kMagnitudeBits = 0x7FFFFFFF;  // of a float: all but its sign
constexpr std::uint32_t kInfinity = 0x7F800000;
// What a float's exponent is biased by more than a Float16's, in the place of the exponent.
constexpr std::uint32_t kRebias = 112u << 23;
constexpr std::uint32_t kLargestSubnormal = 112;  // a float's exponent of 2^-15

/// BFloat16's bits for those of a float. The upper 16 bits of `random` are what counts.
constexpr std::uint16_t round_to_bfloat16(std::uint32_t word, std::uint32_t random) {
  const std::uint32_t magnitude = word & kMagnitudeBits, sign = word >> 16 & 0x8000;
  if (magnitude > kInfinity) return static_cast<std::uint16_t>(sign | magnitude >> 16 | 0x40);
  if (magnitude == kInfinity) return static_cast<std::uint16_t>(sign | magnitude >> 16);
  const std::uint32_t sum = magnitude + (random >> 16);
  return static_cast<std::uint16_t>(sign | (sum < kInfinity ? sum : kInfinity - 1) >> 16);
}

/// Float16's. The upper 13 bits of `random` are what counts, and below 2^-14 the upper 21.
constexpr std::uint16_t round_to_float16(std::uint32_t word, std::uint32_t random) {
  const std::uint32_t magnitude = word & kMagnitudeBits, sign = word >> 16 & 0x8000;
  if (magnitude > kInfinity) return static_cast<std::uint16_t>(sign | 0x7E00);
  if (magnitude == kInfinity) return static_cast<std::uint16_t>(sign | 0x7C00);
  const std::uint32_t exponent = magnitude >> 23;
  if (exponent <= kLargestSubnormal) {  // in units of 2^-45, 2^-21 of the last place
    const std::uint32_t significand = (magnitude & 0x7FFFFF) | 0x800000;
    const std::uint32_t shift = kLargestSubnormal - exponent;
    const std::uint32_t units = significand << 7 >> (shift < 31 ? shift : 31);
    return static_cast<std::uint16_t>(sign | (units + (random >> 11)) >> 21);
  }
  const std::uint32_t rounded = (magnitude - kRebias + (random >> 19)) >> 13;
  return static_cast<std::uint16_t>(sign | (rounded < 0x7BFF ? rounded : 0x7BFF));
}

}  // namespace serrate
