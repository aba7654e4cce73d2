#pragma once

#include <cstdint>

#include "kernels/philox_draw.h"
#include "serrate/kernels/embedding_update.h"

// Rounds up or down at random, up with a probability that is how far the value is from the one
// below: so the mean is the value, and changes smaller than the spacing of a type are not lost.
// Values beyond the largest finite one become that; infinities and NaN stay so.
namespace serrate {

/// The draws of a step's update; the rows and columns of counters are those of the whole table.
inline PhiloxDraw rounding_draw(const TableRounding& rounding, std::int64_t step) {
  return philox_draw(random_bits(rounding.seed, RandomUse::kRounding, rounding.table,
                                 static_cast<std::uint64_t>(step)),
                     static_cast<std::uint32_t>(RandomUse::kRounding));
}

constexpr std::uint32_t kSizeBits = 0x7FFFFFFF;  // of a float: all but its sign
constexpr std::uint32_t kInfinity = 0x7F800000;
constexpr std::uint32_t kHalfBias = 112u << 23;  // of a float's exponent above that of a Float16
constexpr std::uint32_t kSmallestNormal = 113;   // exponent of 2^-14, Float16's smallest normal

/// BFloat16's bits for those of a float. The upper half of `random` is what counts.
constexpr std::uint16_t round_to_bfloat16(std::uint32_t word, std::uint32_t random) {
  const std::uint32_t size = word & kSizeBits, sign = word >> 16 & 0x8000;
  if (size > kInfinity) return static_cast<std::uint16_t>(sign | size >> 16 | 0x40);
  if (size == kInfinity) return static_cast<std::uint16_t>(sign | size >> 16);
  const std::uint32_t sum = size + (random >> 16);
  return static_cast<std::uint16_t>(sign | (sum < kInfinity ? sum : kInfinity - 1) >> 16);
}

/// Float16's. The upper 13 bits of `random` are what counts.
constexpr std::uint16_t round_to_float16(std::uint32_t word, std::uint32_t random) {
  const std::uint32_t size = word & kSizeBits, sign = word >> 16 & 0x8000;
  if (size > kInfinity) return static_cast<std::uint16_t>(sign | 0x7E00);
  if (size == kInfinity) return static_cast<std::uint16_t>(sign | 0x7C00);
  // In units of 2^-13 of Float16's last place, which below the normal ones is 2^-24.
  const std::uint32_t exponent = size >> 23;
  std::uint32_t units = size - kHalfBias;
  if (exponent < kSmallestNormal) {
    const std::uint32_t shift = kSmallestNormal - exponent;
    units = ((size & 0x7FFFFF) | 0x800000) >> (shift < 31 ? shift : 31);
  }
  const std::uint32_t rounded = (units + (random >> 19)) >> 13;
  return static_cast<std::uint16_t>(sign | (rounded < 0x7BFF ? rounded : 0x7BFF));
}

}  // namespace serrate
