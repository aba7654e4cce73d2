#pragma once

#include <algorithm>
#include <cstdint>
#include <ranges>
#include <span>

namespace serrate {

/// The first row of part `part` of `parts`, when the rows of a jagged array are dealt out in
/// contiguous runs of about equal work; a row counts as one value more than it holds.
inline std::int64_t split_jagged(std::span<const std::int64_t> offsets, std::int64_t part,
                                 std::int64_t parts) {
  const auto work = [&](std::int64_t row) { return offsets[row] - offsets[0] + row; };
  const std::int64_t num_rows = std::ssize(offsets) - 1;
  const auto rows = std::views::iota(std::int64_t{0}, num_rows);
  return *std::ranges::lower_bound(rows, work(num_rows) * part / parts, {}, work);
}

}  // namespace serrate
