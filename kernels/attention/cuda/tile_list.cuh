#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/attention/bit_mask.h"
#include "kernels/attention/cuda/scores.cuh"
#include "kernels/attention/cuda/work_list.h"
#include "kernels/cuda/fragments.cuh"

// What a mask leaves of tiles, for kernels on tensor cores: a pair of 16 queries and kMmaTile keys
// is empty, full, or has to be tested. Both directions and all masks have it from here.
namespace serrate {

/// Two ranges of a sequence's keys, counted from its first; none ends before it begins.
struct alignas(16) KeyRanges {
  int begin[2], end[2];

  __device__ bool contains(int key) const {
    const auto is_in = [&](int i) -> unsigned {  // without a branch
      return static_cast<unsigned>(key - begin[i]) < static_cast<unsigned>(end[i] - begin[i]);
    };
    return (is_in(0) | is_in(1)) != 0;
  }
  __device__ bool meets(int first, int last) const {
    return (begin[0] < last && first < end[0]) || (begin[1] < last && first < end[1]);
  }
  __device__ bool covers(int first, int last) const {
    return (begin[0] <= first && last <= end[0]) || (begin[1] <= first && last <= end[1]);
  }
};

/// The keys of a query; none behind the last query.
__device__ inline KeyRanges key_ranges(const AttentionView& args, const TilePair& at,
                                       std::int64_t query) {
  KeyRanges result{};
  if (query >= at.queries.count) return result;
  const TwoRanges keys = keys_of(args, at, query);
  const std::int64_t num_keys = at.num_keys;  // once: std::min takes references
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::int64_t begin = std::max<std::int64_t>(keys[i].begin, 0);
    const std::int64_t end = std::min(keys[i].end, num_keys);
    if (begin >= end) continue;
    result.begin[i] = static_cast<int>(begin), result.end[i] = static_cast<int>(end);
  }
  return result;
}

/// Those of a warp's 16 queries from first_query on, to shared memory.
__device__ inline void set_key_ranges(const AttentionView& args, const TilePair& at,
                                      std::int64_t first_query, KeyRanges* ranges) {
  const int lane = lane_index();
  if (lane < kWarpRows) {
    const KeyRanges keys = key_ranges(args, at, first_query + lane);
    ranges[lane] = keys;
  }
  __syncwarp();
}
__device__ inline void set_key_ranges(const AttentionView& args, const TilePair& at,
                                      KeyRanges* ranges) {
  set_key_ranges(args, at, at.first_query, ranges);
}

/// What a run of up to 16 queries sees of a tile of keys: nothing, or every query every key.
struct TileClass {
  bool is_empty, is_full;
};
/// Of what two rules leave.
__device__ inline TileClass operator&(const TileClass& a, const TileClass& b) {
  return {a.is_empty || b.is_empty, a.is_full && b.is_full};
}

/// Of a run of queries: none sees a key outside `outer`, and all see those in `inner`. These may
/// end before they begin, and are empty then.
struct KeyBounds {
  KeyRanges outer, inner;

  __device__ TileClass class_of_tile(int first_key, int end_key) const {
    return {!outer.meets(first_key, end_key), inner.covers(first_key, first_key + kMmaTile)};
  }
};

/// Of the queries whose ranges the first `count` lanes of a warp have, one or more.
__device__ inline KeyBounds bounds_of_lanes(const KeyRanges& keys, int count) {
  constexpr int kMost = std::numeric_limits<int>::max();
  const bool is_query = lane_index() < count;
  KeyBounds result;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const bool sees_any = is_query && keys.begin[i] < keys.end[i];
    result.outer.begin[i] = __reduce_min_sync(~0u, sees_any ? keys.begin[i] : kMost);
    result.outer.end[i] = __reduce_max_sync(~0u, sees_any ? keys.end[i] : 0);
    result.inner.begin[i] = __reduce_max_sync(~0u, is_query ? keys.begin[i] : 0);
    result.inner.end[i] = __reduce_min_sync(~0u, is_query ? keys.end[i] : kMost);
  }
  return result;
}

/// Of the `count` queries from first_query on, by those of the first and of the last one where
/// ranges rise between them; else they say nothing. Of no queries, all see any key.
__device__ inline KeyBounds bounds_of_ends(const AttentionView& args, const TilePair& at,
                                           std::int64_t first_query, int count) {
  const std::int64_t num_keys = at.num_keys, last_query = first_query + count - 1;
  const auto clamped = [&](std::int64_t key) {
    return static_cast<int>(std::clamp<std::int64_t>(key, 0, num_keys));
  };
  const KeyRanges none{}, all{{0, 0}, {std::numeric_limits<int>::max(), 0}};
  if (count <= 0) return {none, all};
  if (!ranges_rise(args, at, first_query, last_query)) return {all, none};
  const TwoRanges first = keys_of(args, at, first_query), last = keys_of(args, at, last_query);
  KeyBounds result;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    result.outer.begin[i] = clamped(first[i].begin), result.outer.end[i] = clamped(last[i].end);
    result.inner.begin[i] = clamped(last[i].begin), result.inner.end[i] = clamped(first[i].end);
  }
  return result;
}

/// A run of up to 16 queries and a tile of keys.
struct RunAndTile {
  std::int64_t first_query;
  int count, first_key;

  __device__ int end_key(const TilePair& at) const {
    const std::int64_t num_keys = at.num_keys;
    return static_cast<int>(std::min<std::int64_t>(first_key + kMmaTile, num_keys));
  }
};

/// By the ranges of the queries, which the first lanes of the warp have; the tile's keys end before
/// end_key.
__device__ inline TileClass class_by_ranges(const KeyRanges& of_lane, const RunAndTile& pair,
                                            int end_key) {
  const bool is_query = lane_index() < pair.count;
  const bool meets = is_query && of_lane.meets(pair.first_key, end_key);
  const bool covers = !is_query || of_lane.covers(pair.first_key, pair.first_key + kMmaTile);
  return {__any_sync(~0u, meets) == 0, __all_sync(~0u, covers) != 0};
}

/// By ranges of queries that do not see a key: a warp's lanes have two keys each.
__device__ inline TileClass class_by_columns(const ColumnMask& mask, const TilePair& at,
                                             const RunAndTile& pair, int end_key) {
  const std::int64_t first_query = pair.first_query, end_query = first_query + pair.count;
  bool sees_none = true, sees_all = true;
  for (int key = pair.first_key + lane_index(); key < end_key; key += kLanes) {
    const TwoRanges hidden = ranges_at(mask.ranges, at.in_keys + key);
    std::int64_t seen = first_query;  // the first that may be
    for (int i = 0; i < 2; ++i) {
      for (const MaskRange& range : hidden) {
        if (contains(range, seen)) seen = range.end;
        sees_all &=
            range.begin >= range.end || range.end <= first_query || range.begin >= end_query;
      }
    }
    sees_none &= seen >= end_query;
  }
  return {__all_sync(~0u, sees_none) != 0, __all_sync(~0u, sees_all) != 0};
}

/// By blocks of 16 x 16 bits. Each lane may have a pair of its own.
__device__ inline TileClass class_by_blocks(const BitMaskView& mask, const RunAndTile& pair,
                                            int end_key) {
  TileClass result{true, true};
  const std::int64_t block = pair.first_query / kMaskBlock;
  const auto bit = [&](const DeviceMatrix<const std::uint8_t>& bits, std::int64_t row) {
    return (bits.device_data()[row * bits.stride + block / 8] >> block % 8 & 1) != 0;
  };
  for (std::int64_t c = pair.first_key / kMaskBlock; c < mask_blocks_in(end_key); ++c) {
    result.is_empty &= !bit(mask.any, c);
    result.is_full &= bit(mask.all, c);
  }
  return result;
}

/// By all rules, for a warp whose queries have those ranges, in shared memory.
__device__ inline TileClass class_of_tile(const AttentionView& args, const TilePair& at,
                                          const KeyRanges* ranges, const RunAndTile& pair) {
  if (pair.count <= 0 || pair.first_key >= at.num_keys) return {true, false};
  const int lane = lane_index(), end_key = pair.end_key(at);
  const TileClass result =
      class_by_ranges(lane < pair.count ? ranges[lane] : KeyRanges{}, pair, end_key);
  if (result.is_empty) return result;
  if (const auto* columns = std::get_if<ColumnMask>(&args.mask)) {
    return result & class_by_columns(*columns, at, pair, end_key);
  }
  if (const auto* blocks = std::get_if<BlockMask>(&args.mask)) {
    return result & class_by_blocks(bit_mask(*blocks, at.sequence), pair, end_key);
  }
  return result;
}

/// Calls f(i) for each lane i that asks for it, the warp together.
template <typename F>
__device__ void for_each_of_warp(bool asks, F&& f) {
#pragma unroll 1
  for (unsigned left = __ballot_sync(~0u, asks); left != 0; left &= left - 1) {
    f(__ffs(static_cast<int>(left)) - 1);
  }
}

/// The tiles of keys that the warps of a block visit, some kTiles at a time, in shared memory. Of
/// a block that owns keys: tiles of queries, and in place of a warp a part of each.
template <int kNumWarps>
struct TileList {
  static constexpr int kWords = 4, kTiles = 32 * kWords;
  unsigned seen[kNumWarps][kWords], full[kNumWarps][kWords];

  /// Lists tiles of keys from first_tile on for the queries of `warp`, whose ranges are in shared
  /// memory; the block waits before it reads.
  __device__ void fill(const AttentionView& args, const TilePair& at, const KeyRanges* ranges,
                       std::int64_t first_query, int count, std::int64_t first_tile, int warp) {
    // Read again for each word, as there are few registers. Of no queries nothing is full, so that
    // nothing is weighed without a test: what no query sees may be infinite.
    const auto own = [&] {
      const int lane = lane_index();
      return lane < count ? ranges[lane] : KeyRanges{};
    };
    fill(
        args, at, warp,
        [&](int tile) -> RunAndTile {
          return {first_query, count, static_cast<int>(first_tile + tile) * kMmaTile};
        },
        [&](const RunAndTile&) { return count <= 0 ? KeyBounds{} : bounds_of_lanes(own(), count); },
        [&](const RunAndTile&) { return own(); });
  }
  /// Lists pair_of(tile), each lane's: RunAndTile. bounds_of(pair): its KeyBounds, asked of all
  /// lanes together; ranges_of(pair), asked of the warp: the lane's KeyRanges if it has a query of
  /// the pair.
  template <typename PairOf, typename BoundsOf, typename RangesOf>
  __device__ void fill(const AttentionView& args, const TilePair& at, int warp, PairOf&& pair_of,
                       BoundsOf&& bounds_of, RangesOf&& ranges_of) {
    const int lane = lane_index();
#pragma unroll 1
    for (int word = 0; word < kWords; ++word) {
      const RunAndTile pair = pair_of(word * 32 + lane);
      TileClass tile{true, false};
      const bool has_keys = pair.first_key < at.num_keys;
      if (__any_sync(~0u, has_keys)) {
        const KeyBounds bounds = bounds_of(pair);
        if (has_keys) tile = bounds.class_of_tile(pair.first_key, pair.end_key(at));
      }
      // One rule after the other, not class_of_tile: that takes more registers than there are.
      for_each_of_warp(!tile.is_empty && !tile.is_full, [&](int i) {
        const RunAndTile of_warp = pair_of(word * 32 + i);
        const TileClass by_ranges =
            class_by_ranges(ranges_of(of_warp), of_warp, of_warp.end_key(at));
        if (lane == i) tile = by_ranges;
      });
      if (const auto* columns = std::get_if<ColumnMask>(&args.mask)) {
        for_each_of_warp(!tile.is_empty, [&](int i) {
          const RunAndTile of_warp = pair_of(word * 32 + i);
          const TileClass by_columns = class_by_columns(*columns, at, of_warp, of_warp.end_key(at));
          if (lane == i) tile = tile & by_columns;
        });
      } else if (const auto* blocks = std::get_if<BlockMask>(&args.mask)) {
        if (!tile.is_empty) {
          tile = tile & class_by_blocks(bit_mask(*blocks, at.sequence), pair, pair.end_key(at));
        }
      }
      const unsigned is_seen = __ballot_sync(~0u, !tile.is_empty);
      const unsigned is_full = __ballot_sync(~0u, tile.is_full);
      if (lane == 0) seen[warp][word] = is_seen, full[warp][word] = is_full;
    }
  }
  /// The first one from `tile` on that any warp visits, or kTiles.
  __device__ int next(int tile) const {
    for (int word = tile / 32; word < kWords; ++word, tile = word * 32) {
      unsigned any = 0;
#pragma unroll
      for (int warp = 0; warp < kNumWarps; ++warp) any |= seen[warp][word];
      any &= ~0u << tile % 32;
      if (any != 0) return word * 32 + __ffs(static_cast<int>(any)) - 1;
    }
    return kTiles;
  }
  /// Whether any of `count` warps visits a tile.
  __device__ bool is_seen(int tile, int first_warp, int count) const {
    unsigned any = 0;
    for (int i = 0; i < count; ++i) any |= seen[first_warp + i][tile / 32];
    return (any >> tile % 32 & 1) != 0;
  }
  __device__ bool is_full(int tile, int first_warp, int count) const {
    unsigned all = ~0u;
    for (int i = 0; i < count; ++i) all &= full[first_warp + i][tile / 32];
    return (all >> tile % 32 & 1) != 0;
  }
  __device__ TileClass of_warp(int tile, int warp = thread_index() / kLanes) const {
    return {(seen[warp][tile / 32] >> tile % 32 & 1) == 0,
            (full[warp][tile / 32] >> tile % 32 & 1) != 0};
  }
};

}  // namespace serrate
