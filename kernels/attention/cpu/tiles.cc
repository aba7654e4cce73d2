#include "kernels/attention/cpu/tiles.h"

#include <algorithm>
#include <cstring>
#include <variant>

namespace serrate {
namespace {

bool meets(const MaskRange& range, std::int64_t begin, std::int64_t end) {
  return range.begin < end && begin < range.end;
}

bool contains(const MaskRange& range, std::int64_t begin, std::int64_t end) {
  return range.begin <= begin && end <= range.end;
}

// The part of a range, which may reach as far as integers do, in [first, first + count), from
// first.
MaskRange within(const MaskRange& range, std::int64_t first, std::int64_t count) {
  const std::int64_t begin = std::clamp(range.begin, first, first + count) - first;
  return {begin, std::max(begin, std::clamp(range.end, first, first + count) - first)};
}

// The keys that each query of a tile sees, for the masks that are not simpler than that.
struct Rows {
  QueryTileMask& queries;
  std::int64_t first_query, num_queries;  // of the sequence, in what has a row per query

  template <typename F>
  void for_each(F&& ranges_of) {
    for (std::int64_t i = 0; i < queries.count; ++i) queries.rows[i] = ranges_of(queries.begin + i);
  }

  void operator()(const FullMask&) {
    for_each([&](std::int64_t) { return TwoRanges{MaskRange{0, queries.num_keys}}; });
  }
  void operator()(const WindowMask& mask) {
    const std::int64_t shift = window_shift(mask, num_queries, queries.num_keys);
    for_each([&](std::int64_t i) { return TwoRanges{window_keys(mask, i + shift)}; });
  }
  void operator()(const PrefixMask& mask) {
    for_each([&](std::int64_t i) { return TwoRanges{prefix_keys(mask, queries.sequence, i)}; });
  }
  void operator()(const DocumentMask& mask) {
    const std::int64_t* offsets = mask.document_offsets.device_data();
    const std::int64_t* end = std::upper_bound(offsets, offsets + mask.document_offsets.size(),
                                               first_query + queries.begin);
    for_each([&](std::int64_t i) {
      while (*end <= first_query + i) ++end;
      return TwoRanges{document_keys(mask, {end[-1], *end}, first_query, i)};
    });
  }
  void operator()(const HstuMask& mask) {
    const std::int64_t history_end = num_queries - targets_of(mask, queries.sequence);
    for_each([&](std::int64_t i) { return hstu_keys(mask, history_end, i); });
  }
  void operator()(const RowMask& mask) {
    for_each([&](std::int64_t i) { return ranges_at(mask.ranges, first_query + i); });
  }
  void operator()(const ColumnMask&) {}
  void operator()(const BlockMask&) {}
};

void key_ranges(const AttentionView& args, QueryTileMask& queries) {
  const SequenceQueries all = queries_of(args, queries.sequence);
  std::visit(Rows{queries, all.in_out, all.count}, args.mask);
  queries.rows_hull = {};
  for (std::int64_t i = 0; i < queries.count; ++i) {
    for (std::size_t r = 0; r < 2; ++r) {
      MaskRange& range = queries.rows[i][r];
      range = {std::max<std::int64_t>(range.begin, 0), std::min(range.end, queries.num_keys)};
      queries.rows_hull[r].add(range);
    }
  }
}

ColumnHulls::Hulls hulls_of(const ColumnMask& mask, std::int64_t first, std::int64_t end) {
  ColumnHulls::Hulls hulls;
  for (std::int64_t key = first; key < end; ++key) {
    const TwoRanges ranges = ranges_at(mask.ranges, key);
    for (std::size_t r = 0; r < 2; ++r) hulls[r].add(ranges[r]);
  }
  return hulls;
}

}  // namespace

void MaskHull::add(const MaskRange& range) {
  if (range.begin >= range.end) {
    every = {kUnlimited, -kUnlimited};
    return;
  }
  some = {std::min(some.begin, range.begin), std::max(some.end, range.end)};
  every = {std::max(every.begin, range.begin), std::min(every.end, range.end)};
}

std::int64_t attention_tile(std::int64_t length) {
  static_assert(kTileQueries == kTileKeys);
  const std::int64_t blocks = std::max<std::int64_t>(ceil_div(length, kMaskBlock), 1);
  return std::min(blocks * kMaskBlock, kTileKeys);
}

ColumnHulls::ColumnHulls(const AttentionView& args) {
  const auto* mask = std::get_if<ColumnMask>(&args.mask);
  if (!mask) return;
  for (std::size_t s = 0; s + 1 < args.key_offsets.size(); ++s) {
    const std::int64_t first = args.key_offsets[s], end = args.key_offsets[s + 1];
    const std::int64_t tile = attention_tile(end - first);
    tiles_before_.push_back(std::ssize(hulls_));
    for (std::int64_t key = first; key < end; key += tile) {
      hulls_.push_back(hulls_of(*mask, key, std::min(key + tile, end)));
    }
  }
}

void AttentionTiles::start(std::int64_t sequence, std::int64_t begin, std::int64_t count,
                           QueryTileMask& queries) const {
  using Form = QueryTileMask::Form;
  queries.sequence = sequence, queries.begin = begin, queries.count = count;
  queries.num_keys = num_keys_of(args_, sequence);
  queries.tile_keys = attention_tile(queries.num_keys);
  queries.keys = {0, queries.num_keys};
  const auto* window = std::get_if<WindowMask>(&args_.mask);
  if (std::holds_alternative<FullMask>(args_.mask) || (window && window->left >= kUnlimited)) {
    queries.form = Form::kBand;
    queries.diagonal = queries.num_keys;
    if (!window) return;
    const std::int64_t num_queries = queries_of(args_, sequence).count;
    queries.diagonal = begin + window_shift(*window, num_queries, queries.num_keys) + window->right;
    queries.keys.end = std::clamp<std::int64_t>(queries.diagonal + count, 0, queries.num_keys);
  } else if (std::holds_alternative<ColumnMask>(args_.mask)) {
    queries.form = Form::kColumns;
  } else if (std::holds_alternative<BlockMask>(args_.mask)) {
    queries.form = Form::kBits;
  } else {
    queries.form = Form::kRows;
    key_ranges(args_, queries);
    const auto& [a, b] = queries.rows_hull;
    queries.keys = within({std::min(a.some.begin, b.some.begin), std::max(a.some.end, b.some.end)},
                          0, queries.num_keys);
  }
}

bool AttentionTiles::next(const QueryTileMask& queries, KeyTile& keys, TileMask& mask) const {
  std::int64_t begin = keys.count > 0 ? keys.begin + queries.tile_keys
                                      : queries.keys.begin / queries.tile_keys * queries.tile_keys;
  for (; begin < queries.keys.end; begin += queries.tile_keys) {
    keys = {begin, std::min(queries.tile_keys, queries.num_keys - begin)};
    if (lower(queries, keys, mask)) return true;
  }
  return false;
}

bool AttentionTiles::lower(const QueryTileMask& queries, const KeyTile& keys,
                           TileMask& mask) const {
  switch (queries.form) {
    case QueryTileMask::Form::kBand:
      return mask.set_band(queries.count, std::min(keys.count, queries.keys.end - keys.begin),
                           queries.diagonal - keys.begin);
    case QueryTileMask::Form::kRows:
      return lower_rows(queries, keys, mask);
    case QueryTileMask::Form::kColumns:
      return lower_columns(queries, keys, mask);
    default:
      return lower_bits(queries, keys, mask);
  }
}

bool AttentionTiles::lower_rows(const QueryTileMask& queries, const KeyTile& keys,
                                TileMask& mask) const {
  const std::int64_t end = keys.begin + keys.count;
  const auto& [a, b] = queries.rows_hull;
  if (!meets(a.some, keys.begin, end) && !meets(b.some, keys.begin, end)) return false;
  if (contains(a.every, keys.begin, end) || contains(b.every, keys.begin, end)) {
    return mask.set_band(queries.count, keys.count, keys.count);
  }
  // A query's bit is turned where its range begins and where it ends.
  std::array<QueryBits, kTileKeys> rows = {};
  for (std::size_t r = 0; r < 2; ++r) {
    if (!meets(queries.rows_hull[r].some, keys.begin, end)) continue;
    std::array<QueryBits, kTileKeys + 1> turns = {};
    for (std::int64_t i = 0; i < queries.count; ++i) {
      const MaskRange seen = within(queries.rows[i][r], keys.begin, keys.count);
      turns[seen.begin] ^= QueryBits{1} << i;
      turns[seen.end] ^= QueryBits{1} << i;
    }
    QueryBits row = 0;
    for (std::int64_t j = 0; j < keys.count; ++j) rows[j] |= row ^= turns[j];
  }
  return mask.set_bits(queries.count, keys.count, rows.data());
}

bool AttentionTiles::lower_columns(const QueryTileMask& queries, const KeyTile& keys,
                                   TileMask& mask) const {
  const std::int64_t end = queries.begin + queries.count;
  const auto& [a, b] = columns_.of_tile(queries.sequence, keys.begin / queries.tile_keys);
  if (contains(a.every, queries.begin, end) || contains(b.every, queries.begin, end)) return false;
  if (!meets(a.some, queries.begin, end) && !meets(b.some, queries.begin, end)) {
    return mask.set_band(queries.count, keys.count, keys.count);
  }
  const DeviceSpan<const std::int64_t> ranges = std::get<ColumnMask>(args_.mask).ranges;
  const std::int64_t first_key = args_.key_offsets[queries.sequence] + keys.begin;
  std::array<QueryBits, kTileKeys> rows;
  for (std::int64_t j = 0; j < keys.count; ++j) {
    rows[j] = first_bits(queries.count);
    for (const MaskRange& range : ranges_at(ranges, first_key + j)) {
      const MaskRange hidden = within(range, queries.begin, queries.count);
      rows[j] &= ~(first_bits(hidden.end) ^ first_bits(hidden.begin));
    }
  }
  return mask.set_bits(queries.count, keys.count, rows.data());
}

bool AttentionTiles::lower_bits(const QueryTileMask& queries, const KeyTile& keys,
                                TileMask& mask) const {
  const BitMaskView& from = bit_mask(std::get<BlockMask>(args_.mask), queries.sequence);
  const std::int64_t block = queries.begin / kMaskBlock;
  const std::int64_t num_blocks = ceil_div(queries.count, kMaskBlock);
  std::uint32_t any = 0, all = ~0u;
  for (std::int64_t c = keys.begin / kMaskBlock; c * kMaskBlock < keys.begin + keys.count; ++c) {
    std::uint16_t some, every;
    std::memcpy(&some, from.any.row(c).device_data() + block / 8, sizeof(some));
    std::memcpy(&every, from.all.row(c).device_data() + block / 8, sizeof(every));
    any |= some, all &= every;
  }
  const std::uint32_t blocks = (1u << num_blocks) - 1;
  if ((any >> block % 8 & blocks) == 0) return false;
  if ((all >> block % 8 & blocks) == blocks) {
    return mask.set_band(queries.count, keys.count, keys.count);
  }
  std::array<QueryBits, kTileKeys> rows;
  const QueryBits in_tile = first_bits(queries.count);
  for (std::int64_t j = 0; j < keys.count; ++j) {
    std::memcpy(&rows[j], from.bits.row(keys.begin + j).device_data() + queries.begin / 8,
                sizeof(QueryBits));
    rows[j] &= in_tile;
  }
  return mask.set_bits(queries.count, keys.count, rows.data());
}

}  // namespace serrate
