#pragma once

#include <algorithm>
#include <cstdint>

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
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::int64_t begin = std::max<std::int64_t>(keys[i].begin, 0);
    const std::int64_t end = std::min(keys[i].end, at.num_keys);
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

struct TileClass {
  bool is_empty, is_full;
};

/// By ranges of queries that do not see a key.
__device__ inline TileClass class_by_columns(const ColumnMask& mask, const TilePair& at,
                                             std::int64_t first_query, std::int64_t end_query,
                                             int first_key, int end_key) {
  TileClass result{true, true};
  for (int key = first_key; key < end_key; ++key) {
    const TwoRanges hidden = ranges_at(mask.ranges, at.in_keys + key);
    std::int64_t seen = first_query;  // the first that may be
    for (int i = 0; i < 2; ++i) {
      for (const MaskRange& range : hidden) {
        if (contains(range, seen)) seen = range.end;
        result.is_full &=
            range.begin >= range.end || range.end <= first_query || range.begin >= end_query;
      }
    }
    result.is_empty &= seen >= end_query;
  }
  return result;
}

/// By blocks of 16 x 16 bits.
__device__ inline TileClass class_by_blocks(const BitMaskView& mask, std::int64_t first_query,
                                            int first_key, int end_key) {
  TileClass result{true, true};
  const std::int64_t block = first_query / kMaskBlock;
  const auto bit = [&](const DeviceMatrix<const std::uint8_t>& bits, std::int64_t row) {
    return (bits.device_data()[row * bits.stride + block / 8] >> block % 8 & 1) != 0;
  };
  for (std::int64_t c = first_key / kMaskBlock; c < mask_blocks_in(end_key); ++c) {
    result.is_empty &= !bit(mask.any, c);
    result.is_full &= bit(mask.all, c);
  }
  return result;
}

/// The ranges of queries from first_query on, as they are asked for.
struct RangesOfRows {
  const AttentionView& args;
  const TilePair& at;
  std::int64_t first_query;

  __device__ KeyRanges operator[](int row) const { return key_ranges(args, at, first_query + row); }
};

/// For the `count` queries, up to 16, from first_query on, whose ranges those are.
template <class Ranges>
__device__ TileClass class_of_tile(const AttentionView& args, const TilePair& at,
                                   const Ranges& ranges, std::int64_t first_query, int count,
                                   int first_key) {
  if (count <= 0 || first_key >= at.num_keys) return {true, false};
  const int end_key = static_cast<int>(std::min<std::int64_t>(first_key + kMmaTile, at.num_keys));
  TileClass result{true, first_key + kMmaTile <= at.num_keys};
  for (int row = 0; row < count; ++row) {
    const KeyRanges keys = ranges[row];
    result.is_empty &= !keys.meets(first_key, end_key);
    result.is_full &= keys.covers(first_key, first_key + kMmaTile);
  }
  if (result.is_empty) return result;
  TileClass by_pairs{false, true};
  if (const auto* columns = std::get_if<ColumnMask>(&args.mask)) {
    by_pairs = class_by_columns(*columns, at, first_query, first_query + count, first_key, end_key);
  } else if (const auto* blocks = std::get_if<BlockMask>(&args.mask)) {
    by_pairs = class_by_blocks(bit_mask(*blocks, at.sequence), first_query, first_key, end_key);
  }
  return {by_pairs.is_empty, result.is_full && by_pairs.is_full};
}

/// The tiles of keys that the warps of a block visit, some kTiles at a time, in shared memory. Of
/// a block that owns keys: tiles of queries, and in place of a warp a part of each.
template <int kNumWarps>
struct TileList {
  static constexpr int kWords = 4, kTiles = 32 * kWords;
  unsigned seen[kNumWarps][kWords], full[kNumWarps][kWords];

  /// Lists the tiles first_tile, ... for the queries of `warp`; the block waits before it reads.
  __device__ void fill(const AttentionView& args, const TilePair& at, const KeyRanges* ranges,
                       std::int64_t first_query, int count, std::int64_t first_tile, int warp) {
    fill(warp, [&](int tile) -> TileClass {
      const std::int64_t first_key = (first_tile + tile) * kMmaTile;
      if (first_key >= at.num_keys) return {true, false};
      return class_of_tile(args, at, ranges, first_query, count, static_cast<int>(first_key));
    });
  }
  /// Likewise by the class that f(tile) says.
  template <typename F>
  __device__ void fill(int warp, F&& f) {
    const int lane = lane_index();
    for (int word = 0; word < kWords; ++word) {
      const TileClass tile = f(word * 32 + lane);
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

/// A warp's place in a block of which kSharing warps have the same 16 of kRows rows: of sums each
/// has kColumns columns.
template <int kDim, int kSharing, int kRows = kMmaTile>
struct WarpPart {
  static constexpr int kColumns = kDim / kSharing, kGroups = kRows / kWarpRows;
  int warp = thread_index() / kLanes, part = kSharing == 1 ? 0 : warp / kGroups;
  int row = (warp - part * kGroups) * kWarpRows, first_column = part * kColumns;

  /// The warp copies both of two tensors, or the one that is its part.
  __device__ bool copies(int tensor) const { return kSharing == 1 || part == tensor; }
  /// Waits for the warps that have the same rows.
  __device__ void sync() const {
    if (kSharing > 1) named_barrier_sync(1 + row / kWarpRows, kSharing * kLanes);
  }
};

/// What one warp of a block has to do: 16 queries of one sequence in one head, from `row` of the
/// block's tiles on, whose tiles of keys begin at first_row of those and have `span` rows there.
struct WarpTask {
  TilePair at;  // no queries and no keys: nothing to do
  std::int64_t key_head;
  std::int8_t row, first_row, span;
  int items;  // the task's pairs of a head and a block of queries, one after the other

  /// The warp's rows in its problem's part of a tile.
  __device__ int row_in_span() const { return row - first_row; }
  __device__ int count() const {
    const std::int64_t left = at.queries.count - at.first_query;
    return static_cast<int>(left < 0 ? 0 : left > kWarpRows ? kWarpRows : left);
  }
};

/// The tasks of a kernel: those of the longer sequences by their number before each place of the
/// order, each sequence's by `heads` and then by blocks of rows; and of the others all, in every
/// head. `heads_apart`: so many heads of queries are one of `heads`.
struct TaskNumbers {
  enum class Rows { kQueries, kKeys };

  const std::int64_t* first_task;
  Rows rows;
  int rows_a_block;
  std::int64_t heads, heads_apart;
};

/// The first one that is left to kernels of mma.
__device__ inline std::int64_t first_task_of_mma(const WorkList& list,
                                                 const std::int64_t* first_task) {
  return list.longest_take_wgmma ? first_task[list.counts[4]] : 0;
}

/// A range of them: of long sequences, of those of up to 32 queries and keys (from end_of_long on).
struct TaskRange {
  std::int64_t begin, end_of_long, end;
};
__device__ inline TaskRange all_tasks(const AttentionView& args, const WorkList& list,
                                      const TaskNumbers& numbers) {
  const std::int64_t end_of_long = numbers.first_task[batch_size_of(args)];
  return {first_task_of_mma(list, numbers.first_task), end_of_long,
          end_of_long + ceil_div(list.counts[2] * numbers.heads, 2) +
              ceil_div(list.counts[3] * numbers.heads, 4)};
}

/// The part of the calling warp in a task: its first item. first_query and first_key are those of
/// the block, whichever the numbers count.
__device__ inline WarpTask task_at(const AttentionView& args, const WorkList& list,
                                   const TaskNumbers& numbers, const TaskRange& range,
                                   std::int64_t task) {
  const std::int64_t heads = numbers.heads;
  const std::int64_t longer = list.counts[0] + list.counts[1];
  const auto row =
      static_cast<std::int8_t>(thread_index() / kLanes * kWarpRows % numbers.rows_a_block);
  if (task < range.end_of_long) {
    const std::int64_t* first_task = numbers.first_task;
    const std::int64_t place =
        last_at_most(longer, task, [&](std::int64_t p) { return first_task[p]; });
    WarpTask result{pair_of(args, list.order[place], 0), 0, row, 0, kMmaTile, 1};
    TilePair& at = result.at;
    const bool by_queries = numbers.rows == TaskNumbers::Rows::kQueries;
    const std::int64_t blocks =
        ceil_div(by_queries ? at.queries.count : at.num_keys, numbers.rows_a_block);
    const std::int64_t items = blocks * heads / (first_task[place + 1] - first_task[place]);
    const std::int64_t item = (task - first_task[place]) * items;
    at.head = item / blocks * numbers.heads_apart;
    at.first_query = at.first_key = item % blocks * numbers.rows_a_block;
    result.items = static_cast<int>(items);
    result.key_head = at.head / heads_per_key_head(args);
    return result;
  }
  task -= range.end_of_long;
  const std::int64_t half_tasks = ceil_div(list.counts[2] * heads, 2);
  const bool is_half = task < half_tasks;
  if (!is_half) task -= half_tasks;
  const int span = is_half ? 32 : 16, share = kMmaTile / span;
  const std::int64_t problem = task * share + row / span;
  const std::int64_t problems = list.counts[is_half ? 2 : 3] * heads;
  WarpTask result{
      {}, 0, row, static_cast<std::int8_t>(row / span * span), static_cast<std::int8_t>(span), 1};
  if (problem >= problems) return result;
  const std::int64_t place = longer + (is_half ? 0 : list.counts[2]) + problem / heads;
  result.at = pair_of(args, list.order[place], problem % heads * numbers.heads_apart);
  result.key_head = result.at.head / heads_per_key_head(args);
  return result;
}

}  // namespace serrate
