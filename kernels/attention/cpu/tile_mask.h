#pragma once

#include <array>
#include <cstdint>

#include "kernels/attention/bit_mask.h"
#include "serrate/random.h"

namespace serrate {

// A tile of scores has at most this many queries and keys: both operands of each product with it
// stay in the first two levels of cache. Tiles begin at multiples of kMaskBlock.
inline constexpr std::int64_t kTileQueries = 96;
inline constexpr std::int64_t kTileKeys = 96;

/// A bit for each query of a tile.
using QueryBits = Uint128;

inline QueryBits first_bits(std::int64_t count) {
  return (QueryBits{1} << count) - 1;
}

/// [begin, end) in a tile.
struct TileRange {
  std::uint8_t begin = 0, end = 0;
};

/// Which scores of a tile are visible. Products work on blocks of 6 queries or keys and softmax on
/// vectors of up to 16 queries, so what is to be computed is told for those.
struct TileMask {
  static constexpr std::int64_t kBlock = 6;
  static constexpr std::int64_t kBlocks = kTileKeys / kBlock;
  static constexpr std::int64_t kVectors = kTileQueries / kMaskBlock;
  enum class Form {
    kBand,  ///< query i sees the keys up to i + diagonal; a full tile is one
    kBits,
  };

  Form form;
  std::int64_t queries, keys, diagonal;
  std::array<TileRange, kBlocks> queries_of;  ///< from the first to the last that sees the keys
  std::array<TileRange, kBlocks> keys_of;     ///< from the first to the last that queries see
  std::array<TileRange, kVectors> read;       ///< keys whose scores some product reads
  /// Bit i % 8 of [key, i / 8]; the last row is padding.
  alignas(16) std::uint8_t bits[kTileKeys + 1][sizeof(QueryBits)];

  /// Makes it a band of the given number of queries and keys; false if it is empty.
  bool set_band(std::int64_t num_queries, std::int64_t num_keys, std::int64_t last_key_of_first);
  /// Makes it what the rows of bits, one a key, say; false if no bit is set.
  bool set_bits(std::int64_t num_queries, std::int64_t num_keys, const QueryBits* rows);
};

}  // namespace serrate
