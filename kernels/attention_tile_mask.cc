#include "kernels/attention_tile_mask.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace serrate {
namespace {

std::uint8_t clamp_small(std::int64_t x, std::int64_t limit) {
  return static_cast<std::uint8_t>(std::clamp<std::int64_t>(x, 0, limit));
}

TileRange range_of(QueryBits bits) {
  const auto low = static_cast<std::uint64_t>(bits), high = static_cast<std::uint64_t>(bits >> 64);
  return {static_cast<std::uint8_t>(low ? std::countr_zero(low) : 64 + std::countr_zero(high)),
          static_cast<std::uint8_t>(high ? 64 + std::bit_width(high) : std::bit_width(low))};
}

void include(TileRange& range, std::int64_t begin, std::int64_t end) {
  range = {std::min(range.begin, static_cast<std::uint8_t>(begin)),
           std::max(range.end, static_cast<std::uint8_t>(end))};
}

}  // namespace

bool TileMask::set_band(std::int64_t num_queries, std::int64_t num_keys,
                        std::int64_t last_key_of_first) {
  form = Form::kBand, queries = num_queries, keys = num_keys, diagonal = last_key_of_first;
  if (diagonal >= keys - 1) {
    queries_of.fill({0, clamp_small(queries, queries)});
    keys_of.fill({0, clamp_small(keys, keys)});
    read.fill({0, clamp_small(keys, keys)});
    return true;
  }
  for (std::int64_t b = 0; b < kBlocks; ++b) {
    queries_of[b] = {clamp_small(b * kBlock - diagonal, queries), clamp_small(queries, queries)};
    keys_of[b] = {0, clamp_small((b + 1) * kBlock + diagonal, keys)};
  }
  for (std::int64_t v = 0; v < kVectors; ++v) {
    // A block of queries may cross the vector's end.
    read[v] = {0, clamp_small((v + 1) * kMaskBlock + diagonal + kBlock - 1, keys)};
  }
  return queries + diagonal > 0;
}

bool TileMask::set_bits(std::int64_t num_queries, std::int64_t num_keys, const QueryBits* rows) {
  const QueryBits every_query = first_bits(num_queries);
  QueryBits any = 0, all = every_query;
  for (std::int64_t r = 0; r < num_keys; ++r) any |= rows[r], all &= rows[r];
  if (any == 0) return false;
  if (all == every_query) return set_band(num_queries, num_keys, num_keys);

  form = Form::kBits, queries = num_queries, keys = num_keys, diagonal = 0;
  std::memcpy(bits, rows, static_cast<std::size_t>(keys) * sizeof(QueryBits));
  constexpr TileRange kNothingYet{255, 0};
  queries_of.fill({}), keys_of.fill(kNothingYet), read.fill(kNothingYet);
  for (std::int64_t first = 0; first < keys; first += kBlock) {
    const std::int64_t end = std::min(first + kBlock, keys);
    QueryBits block = 0;
    for (std::int64_t r = first; r < end; ++r) block |= rows[r];
    if (block == 0) continue;
    const TileRange seen_by = queries_of[first / kBlock] = range_of(block);
    for (std::int64_t b = seen_by.begin / kBlock; b * kBlock < seen_by.end; ++b) {
      if ((block >> (b * kBlock) & first_bits(kBlock)) != 0) include(keys_of[b], first, end);
    }
    for (std::int64_t v = seen_by.begin / kMaskBlock; v * kMaskBlock < seen_by.end; ++v) {
      include(read[v], first, end);
    }
  }
  for (std::int64_t b = 0; b < kBlocks; ++b) {
    if (keys_of[b].end == 0) keys_of[b] = {};
    // The vectors that the block's first and last query are in.
    for (const std::int64_t query : {b * kBlock, b * kBlock + kBlock - 1}) {
      if (keys_of[b].end > 0) include(read[query / kMaskBlock], keys_of[b].begin, keys_of[b].end);
    }
  }
  for (TileRange& r : read) {
    if (r.end == 0) r = {};
  }
  return true;
}

}  // namespace serrate
