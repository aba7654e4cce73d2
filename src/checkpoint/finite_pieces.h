#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "serrate/bfloat16.h"
#include "serrate/float16.h"

namespace serrate {

/// Matrices are read, written and looked through in pieces of so many values.
inline constexpr std::int64_t kPieceValues = std::int64_t{1} << 20;

/// Rows of a matrix that are read or written at once.
inline std::int64_t piece_rows(std::int64_t columns) {
  return std::max<std::int64_t>(1, kPieceValues / std::max<std::int64_t>(columns, 1));
}

/// Calls `use(begin, end)` for the rows of a matrix, a few at a time.
template <typename Use>
void for_each_piece(std::int64_t rows, std::int64_t columns, const Use& use) {
  const std::int64_t step = piece_rows(columns);
  for (std::int64_t begin = 0; begin < rows; begin += step)
    use(begin, std::min(begin + step, rows));
}

/// The bits of an exponent.
template <typename T>
inline constexpr std::uint32_t kExponent = 0x7f800000;
template <>
inline constexpr std::uint16_t kExponent<Float16> = 0x7c00;
template <>
inline constexpr std::uint16_t kExponent<BFloat16> = 0x7f80;

/// All ones in the exponent: infinite or not a number. Branch-free, so that it keeps pace with
/// memory.
template <typename T>
bool all_finite(std::span<const T> values) {
  using Bits = std::remove_const_t<decltype(kExponent<T>)>;
  Bits found = 0;
  for (const T value : values) {
    found |= (std::bit_cast<Bits>(value) & kExponent<T>) == kExponent<T> ? 1 : 0;
  }
  return found == 0;
}

/// The row of the first value that is not finite, of values that have one.
template <typename T>
std::pair<std::int64_t, float> first_not_finite(std::span<const T> values, std::int64_t columns) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!all_finite<T>(values.subspan(i, 1))) {
      return {static_cast<std::int64_t>(i) / columns, static_cast<float>(values[i])};
    }
  }
  return {0, 0};
}

}  // namespace serrate
