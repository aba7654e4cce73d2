#pragma once

#include "serrate/kernels/random_rows.h"
#include "serrate/random.h"

namespace serrate {

inline constexpr std::int64_t kWeightsOfCall = 4;  // of Philox

/// Draws the weights of RandomRows.
struct WeightDraw {
  std::int64_t first_row, calls_of_row;
  float scale;
  std::uint64_t seed;
  std::uint32_t stream;

  explicit WeightDraw(const RandomRows& args)
      : first_row(args.first_row),
        calls_of_row((args.table_columns + kWeightsOfCall - 1) / kWeightsOfCall),
        scale(args.scale),
        seed(args.seed),
        stream(args.stream) {}

  /// The random words of the table's columns from 4 call on.
  constexpr std::array<std::uint32_t, kWeightsOfCall> words(std::int64_t row,
                                                            std::int64_t call) const {
    const auto index = static_cast<std::uint64_t>((first_row + row) * calls_of_row + call);
    return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                       stream, static_cast<std::uint32_t>(RandomUse::kInit)},
                      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  }
  /// The fraction is exact in float, so that the product alone rounds.
  constexpr float weight(std::uint32_t word) const {
    const auto fraction = static_cast<std::int32_t>(word >> 8) - (1 << 23);
    return scale * (static_cast<float>(fraction) * 0x1.0p-23f);
  }
};

}  // namespace serrate
