#include "kernels/attention/mask.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <variant>

#include "kernels/attention/batch.h"
#include "kernels/attention/mask_rows.h"
#include "serrate/error.h"

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

// Throws unless the mask's arrays have what the batch's offsets ask of them.
struct Checks {
  const AttentionForward& args;
  std::int64_t batch_size = batch_size_of(args);

  void one_a_sequence(std::span<const std::int64_t> values, std::string_view name) const {
    check(std::ssize(values) == batch_size, std::string(name) + " must have an entry per sequence");
  }
  void self_attention() const {
    check(std::ranges::equal(args.query_offsets, args.key_offsets),
          "this mask is for self-attention: key_offsets must equal query_offsets");
  }
  void operator()(const FullMask&) const {}
  void operator()(const WindowMask& mask) const {
    check(mask.left >= -kUnlimited && mask.left <= kUnlimited && mask.right >= -kUnlimited &&
              mask.right <= kUnlimited,
          "a window reaches at most kUnlimited to each side");
  }
  void operator()(const PrefixMask& mask) const {
    one_a_sequence(mask.prefix_lengths, "prefix_lengths");
  }
  void operator()(const DocumentMask& mask) const {
    self_attention();
    const auto offsets = mask.document_offsets;
    check(!offsets.empty() && offsets.front() <= args.query_offsets.front() &&
              offsets.back() >= args.query_offsets.back() &&
              std::is_sorted(offsets.begin(), offsets.end()),
          "document_offsets must rise and cover all tokens");
    check(mask.right >= 0 && mask.right <= kUnlimited, "a document's right must not be negative");
  }
  void operator()(const HstuMask& mask) const {
    self_attention();
    check(mask.num_contexts >= 0 && mask.target_group_size >= 1 && mask.window >= 0 &&
              mask.full_length >= 0,
          "an HSTU mask needs num_contexts, window, full_length >= 0 and target_group_size >= 1");
    if (mask.num_targets.empty()) return;
    one_a_sequence(mask.num_targets, "num_targets");
    for (std::int64_t s = 0; s < batch_size; ++s) {
      check(mask.num_targets[s] >= 0 &&
                mask.num_targets[s] <= args.query_offsets[s + 1] - args.query_offsets[s],
            "num_targets must be between 0 and the sequence's length");
    }
  }
  void operator()(const RowMask& mask) const {
    check(std::ssize(mask.ranges) >= 4 * end_of_queries(args),
          "a row mask's ranges must be [num_query_tokens, 2, 2]");
  }
  void operator()(const ColumnMask& mask) const {
    check(std::ssize(mask.ranges) >= 4 * args.key_offsets.back(),
          "a column mask's ranges must be [num_key_tokens, 2, 2]");
  }
  void operator()(const BlockMask& mask) const {
    const bool shared = mask.masks.size() == 1;
    check(shared || std::ssize(mask.masks) == batch_size,
          "a block mask must have one mask, or one per sequence");
    for (std::int64_t s = 0; s < batch_size; ++s) {
      const BitMaskView& bits = mask.masks[shared ? 0 : s];
      check(queries_of(args, s).count <= bits.num_queries && num_keys_of(args, s) <= bits.num_keys,
            "a block mask must be as large as its sequences");
    }
  }
};

std::array<MaskHull, 2> hull_of_columns(const std::int64_t* ranges, std::int64_t count) {
  std::array<MaskHull, 2> hulls;
  for (std::int64_t j = 0; j < count; ++j) {
    for (std::size_t r = 0; r < 2; ++r, ranges += 2) hulls[r].add({ranges[0], ranges[1]});
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

AttentionTiles::AttentionTiles(const AttentionForward& args) : args_(args) {
  std::visit(Checks{args}, args.mask);
  const auto* mask = std::get_if<ColumnMask>(&args.mask);
  if (!mask) return;
  for (std::size_t s = 0; s + 1 < args.key_offsets.size(); ++s) {
    const std::int64_t first = args.key_offsets[s], end = args.key_offsets[s + 1];
    const std::int64_t tile = attention_tile(end - first);
    columns_before_.push_back(std::ssize(columns_));
    for (std::int64_t key = first; key < end; key += tile) {
      columns_.push_back(hull_of_columns(&mask->ranges[key * 4], std::min(tile, end - key)));
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
  const auto& [a, b] = columns_[columns_before_[queries.sequence] + keys.begin / queries.tile_keys];
  if (contains(a.every, queries.begin, end) || contains(b.every, queries.begin, end)) return false;
  if (!meets(a.some, queries.begin, end) && !meets(b.some, queries.begin, end)) {
    return mask.set_band(queries.count, keys.count, keys.count);
  }
  const std::int64_t* range = &std::get<ColumnMask>(args_.mask)
                                   .ranges[(args_.key_offsets[queries.sequence] + keys.begin) * 4];
  std::array<QueryBits, kTileKeys> rows;
  for (std::int64_t j = 0; j < keys.count; ++j) {
    rows[j] = first_bits(queries.count);
    for (int r = 0; r < 2; ++r, range += 2) {
      const MaskRange hidden = within({range[0], range[1]}, queries.begin, queries.count);
      rows[j] &= ~(first_bits(hidden.end) ^ first_bits(hidden.begin));
    }
  }
  return mask.set_bits(queries.count, keys.count, rows.data());
}

const BitMaskView& AttentionTiles::bit_mask(std::int64_t sequence) const {
  const auto masks = std::get<BlockMask>(args_.mask).masks;
  return masks[masks.size() == 1 ? 0 : sequence];
}

bool AttentionTiles::lower_bits(const QueryTileMask& queries, const KeyTile& keys,
                                TileMask& mask) const {
  const BitMaskView& from = bit_mask(queries.sequence);
  const std::int64_t block = queries.begin / kMaskBlock;
  const std::int64_t num_blocks = ceil_div(queries.count, kMaskBlock);
  std::uint32_t any = 0, all = ~0u;
  for (std::int64_t c = keys.begin / kMaskBlock; c * kMaskBlock < keys.begin + keys.count; ++c) {
    std::uint16_t some, every;
    std::memcpy(&some, from.any.row(c) + block / 8, sizeof(some));
    std::memcpy(&every, from.all.row(c) + block / 8, sizeof(every));
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
    std::memcpy(&rows[j], from.bits.row(keys.begin + j) + queries.begin / 8, sizeof(QueryBits));
    rows[j] &= in_tile;
  }
  return mask.set_bits(queries.count, keys.count, rows.data());
}

}  // namespace serrate
