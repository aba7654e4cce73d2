#include "kernels/attention/cpu/split.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/attention/cpu/tiles.h"

namespace serrate {
namespace {

// Up to here reading in the order of memory wins more than full vectors of queries do.
constexpr std::int64_t kFewRows = 16;
// More queries with fewer keys are trained on, and as fast in tiles of one head.
constexpr std::int64_t kKeysPerQueryOfDecoding = 8;
// Long enough that reading its keys hides what a chunk costs besides.
constexpr std::int64_t kTilesPerChunk = 8;

std::int64_t largest_divisor(std::int64_t n, std::int64_t limit) {
  std::int64_t divisor = std::clamp<std::int64_t>(limit, 1, n);
  while (n % divisor != 0) --divisor;
  return divisor;
}

// Biases and dropout are of one head.
bool heads_are_alike(const AttentionView& args) {
  return !args.bias.data && args.position_table.values.empty() && args.time_table.values.empty() &&
         !args.has_dropout;
}

std::int64_t chunk_of(std::int64_t num_keys) {
  const std::int64_t tile = attention_tile(num_keys);
  const std::int64_t tiles = std::max<std::int64_t>(ceil_div(num_keys, tile), 1);
  return ceil_div(tiles, ceil_div(tiles, kTilesPerChunk)) * tile;
}

}  // namespace

AttentionSplit forward_split(const AttentionView& args, std::int64_t sequence) {
  constexpr std::int64_t kTilesPerTask = 4;
  const std::int64_t queries = queries_of(args, sequence).count;
  const std::int64_t keys = num_keys_of(args, sequence);
  if (queries == 0 || queries > kTileQueries ||
      (queries > kFewRows && keys < kKeysPerQueryOfDecoding * queries)) {
    return {.heads = 1,
            .queries = std::min(kTilesPerTask, queries / kMaskBlock + 1) * attention_tile(queries),
            .keys = keys};
  }
  AttentionSplit split{.heads = 1, .queries = queries, .keys = chunk_of(keys)};
  const std::int64_t group = heads_per_key_head(args), most_heads = kTileQueries / queries;
  if (!heads_are_alike(args)) {
    split.few_rows = queries <= kFewRows;
  } else if (queries * group > kFewRows) {
    split.heads = largest_divisor(group, most_heads);
  } else {
    const std::int64_t columns = ceil_div(args.head_dim, kMaskBlock) * kMaskBlock;
    split.few_rows = true;
    split.heads =
        group * largest_divisor(args.num_key_heads,
                                std::min(most_heads / group, kMaxFewRowsColumns / columns));
  }
  return split;
}

std::int64_t partials_of(const AttentionView& args, std::int64_t sequence,
                         const AttentionSplit& split) {
  const std::int64_t keys = num_keys_of(args, sequence);
  if (keys <= split.keys) return 0;
  const std::int64_t rows = args.num_heads * queries_of(args, sequence).count;
  return ceil_div(keys, split.keys) * rows * (args.head_dim + 2);
}

void repeat_queries(std::int64_t heads, TileMask& mask) {
  const std::int64_t queries = mask.queries, keys = mask.keys, diagonal = mask.diagonal;
  const bool is_band = mask.form == TileMask::Form::kBand;
  std::array<QueryBits, kTileKeys> rows;
  if (!is_band || diagonal < keys - 1) {
    QueryBits first_queries = 0;
    for (std::int64_t h = 0; h < heads; ++h) first_queries |= QueryBits{1} << (h * queries);
    for (std::int64_t r = 0; r < keys; ++r) {
      if (is_band) {
        const std::int64_t hidden = std::clamp<std::int64_t>(r - diagonal, 0, queries);
        rows[r] = first_bits(queries) ^ first_bits(hidden);
      } else {
        std::memcpy(&rows[r], mask.bits[r], sizeof(rows[r]));
      }
      rows[r] *= first_queries;
    }
  }
  mask.set_band(heads * queries, keys, keys);
  if (is_band && diagonal >= keys - 1) return;
  mask.form = TileMask::Form::kBits;
  std::memcpy(mask.bits, rows.data(), static_cast<std::size_t>(keys) * sizeof(QueryBits));
}

}  // namespace serrate
