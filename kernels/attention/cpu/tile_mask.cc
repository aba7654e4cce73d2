#include "kernels/attention/cpu/tile_mask.h"

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

QueryBits bits_of(std::int64_t begin, std::int64_t end) {
  return first_bits(end) ^ first_bits(begin);
}

// The queries of every block of keys.
using BlockQueries = std::array<QueryBits, TileMask::kBlocks>;

// Keys from the first to the last block that has one of the queries in the given blocks of them.
TileRange keys_between(const BlockQueries& blocks, std::int64_t keys, std::int64_t first_block,
                       std::int64_t end_block) {
  const QueryBits queries = bits_of(first_block * TileMask::kBlock, end_block * TileMask::kBlock);
  std::int64_t begin = 0, end = TileMask::kBlocks;
  while (begin < end && (blocks[begin] & queries) == 0) ++begin;
  while (begin < end && (blocks[end - 1] & queries) == 0) --end;
  return {clamp_small(begin * TileMask::kBlock, keys), clamp_small(end * TileMask::kBlock, keys)};
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
  BlockQueries seen_by = {}, between = {};
  for (std::int64_t r = 0; r < keys; ++r) seen_by[r / kBlock] |= rows[r];
  for (std::int64_t b = 0; b < kBlocks; ++b) {
    queries_of[b] = seen_by[b] == 0 ? TileRange{} : range_of(seen_by[b]);
    between[b] = bits_of(queries_of[b].begin, queries_of[b].end);
  }
  for (std::int64_t b = 0; b < kBlocks; ++b) keys_of[b] = keys_between(seen_by, keys, b, b + 1);
  for (std::int64_t v = 0; v < kVectors; ++v) {
    // A block of queries may cross the vector's begin and end.
    read[v] = keys_between(between, keys, v * kMaskBlock / kBlock,
                           ((v + 1) * kMaskBlock - 1) / kBlock + 1);
  }
  return true;
}

}  // namespace serrate
