#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/attention/cpu/tile_mask.h"
#include "kernels/attention/mask_ranges.h"
#include "kernels/attention/view.h"

namespace serrate {

/// The size of a sequence's tiles but the last: a function of its length alone, so that every mask
/// and every pass meets the same tiles.
std::int64_t attention_tile(std::int64_t length);

/// What some, and what every one, of several ranges covers; an empty range covers nothing.
struct MaskHull {
  MaskRange some{kUnlimited, -kUnlimited}, every{-kUnlimited, kUnlimited};
  void add(const MaskRange& range);
};

/// A tile of queries of one sequence, and its mask lowered to one of four forms.
struct QueryTileMask {
  enum class Form {
    kBand,     ///< query i sees the keys up to i + diagonal
    kRows,     ///< two ranges of keys that a query sees
    kColumns,  ///< two ranges of queries that do not see a key
    kBits,
  };
  std::int64_t sequence, begin, count, num_keys;
  std::int64_t tile_keys;  ///< keys a tile
  MaskRange keys;          ///< outside of which it sees none
  Form form;
  std::int64_t diagonal;
  std::array<TwoRanges, kTileQueries> rows;
  std::array<MaskHull, 2> rows_hull;
};

struct KeyTile {
  std::int64_t begin = 0, count = 0;
};

/// What a ColumnMask hides of every tile, some keys or all of them; empty for other masks.
class ColumnHulls {
 public:
  using Hulls = std::array<MaskHull, 2>;
  explicit ColumnHulls(const AttentionView& args);
  const Hulls& of_tile(std::int64_t sequence, std::int64_t tile) const {
    return hulls_[tiles_before_[sequence] + tile];
  }

 private:
  std::vector<Hulls> hulls_;
  std::vector<std::int64_t> tiles_before_;  // those of a sequence
};

/// The masks of a batch as kernels ask for them: for a tile of queries, the tiles of keys that are
/// not empty, and which scores of them are visible. A tile that is full says so.
class AttentionTiles {
 public:
  /// Both have to stay.
  AttentionTiles(const AttentionView& args, const ColumnHulls& columns)
      : args_(args), columns_(columns) {}

  void start(std::int64_t sequence, std::int64_t begin, std::int64_t count,
             QueryTileMask& queries) const;
  /// Moves `keys` to the next tile, from the first if it is KeyTile(); false if there is none.
  bool next(const QueryTileMask& queries, KeyTile& keys, TileMask& mask) const;

 private:
  bool lower(const QueryTileMask& queries, const KeyTile& keys, TileMask& mask) const;
  bool lower_rows(const QueryTileMask& queries, const KeyTile& keys, TileMask& mask) const;
  bool lower_columns(const QueryTileMask& queries, const KeyTile& keys, TileMask& mask) const;
  bool lower_bits(const QueryTileMask& queries, const KeyTile& keys, TileMask& mask) const;

  const AttentionView& args_;
  const ColumnHulls& columns_;
};

}  // namespace serrate
