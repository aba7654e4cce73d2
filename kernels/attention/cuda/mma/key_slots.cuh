#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/mma/head_rows.cuh"
#include "kernels/attention/cuda/tile_list.cuh"

namespace serrate {

/// Rows of so many bytes.
constexpr std::int64_t slot_bytes(std::int64_t row_bytes) {
  return 2 * kMmaTile * row_bytes;
}

/// The tiles of keys and values that a block of kNumWarps has in shared memory, tile t in slot
/// t % slots, and how it goes through them. A block that sees a tile more than once has a whole
/// sequence, of few tiles.
template <int kDim, int kNumWarps, class Half>
class KeySlots {
 public:
  using List = TileList<kNumWarps>;
  using Rows = SwizzledRows<kDim, Half>;

  __device__ KeySlots(Half* data, int slots) : data_(data), slots_(slots) {}

  /// Before another sequence or head of keys.
  __device__ void forget() { held_ = 0; }

  /// Calls f(tile, what the warp sees of it, keys, values) for every tile from first_tile on that
  /// any warp of the block sees, all warps together, with the next one under way. What a warp began
  /// to copy before is there when f is called. The block has read what the slots held.
  template <typename F>
  __device__ void for_each_tile(const AttentionView& args, const WarpTask& task,
                                const KeyRanges* ranges, List& list, F&& f, int first_tile = 0) {
    const TilePair& at = task.at;
    // Warps may have different sequences, of one tile.
    for (int base = first_tile; base == first_tile || base * kMmaTile < at.num_keys;
         base += List::kTiles) {
      __syncthreads();  // the list and the tiles before have been read
      list.fill(args, at, ranges, at.first_query, task.count(), base, thread_index() / kLanes);
      __syncthreads();
      int now = list.next(0);
      if (now < List::kTiles) hold(args, task, base + now);
      while (now < List::kTiles) {
        const TileClass seen = list.of_warp(now);
        const int next = list.next(now + 1);
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();  // this tile is there, the one before has been read
        const bool has_room = (next - now) % slots_ != 0;
        if (next < List::kTiles && has_room) hold(args, task, base + next);
        Half* const slot = data_of(base + now);
        f(base + now, seen, Rows{slot}, Rows{slot + kMmaTile * kDim});
        if (next < List::kTiles && !has_room) {
          __syncthreads();  // this tile has been read
          hold(args, task, base + next);
        }
        now = next;
      }
    }
    copy_async_commit();
    copy_async_wait<0>();
  }

 private:
  __device__ Half* data_of(int tile) const { return data_ + tile % slots_ * 2 * kMmaTile * kDim; }
  // Whether a tile has to be copied, which then is held in place of the one in its slot.
  __device__ bool take(int tile) {
    if (tile >= 32) {
      held_ = 0;
      return true;
    }
    if ((held_ >> tile & 1) != 0) return false;
    for (int other = tile % slots_; other < 32; other += slots_) held_ &= ~(1u << other);
    held_ |= 1u << tile;
    return true;
  }
  // Each warp copies its share of a tile: of four, 16 rows of both; of eight, of one.
  __device__ void hold(const AttentionView& args, const WarpTask& task, int tile) {
    if (!take(tile)) return;
    const TilePair& at = task.at;
    const int first_row = thread_index() / kLanes * kWarpRows, row = first_row % kMmaTile;
    const int key = tile * kMmaTile + row - task.first_row;
    const std::int64_t token = at.in_keys + key, count = at.num_keys - key;
    const Rows keys{data_of(tile)}, values{keys.data + kMmaTile * kDim};
    if (kNumWarps == kWarps || first_row < kMmaTile) {
      copy_rows<kDim>(args.k, token, task.key_head, count, keys, row);
    }
    if (kNumWarps == kWarps || first_row >= kMmaTile) {
      copy_rows<kDim>(args.v, token, task.key_head, count, values, row);
    }
  }

  Half* data_;
  int slots_;
  unsigned held_ = 0;
};

/// What the warps of a block that takes queries read now and then, in shared memory, as registers
/// are full.
template <int kNumWarps>
struct QueryBlock {
  TileList<kNumWarps> list;
  KeyRanges ranges[kNumWarps * kWarpRows];
  WarpTask tasks[kNumWarps];
  TaskRange range;

  /// The calling warp's part of a task.
  __device__ void take(const AttentionView& args, const WorkList& work, const TaskNumbers& numbers,
                       std::int64_t index) {
    const WarpTask found = task_at(args, work, numbers, range, index);
    if (lane_index() == 0) {
      WarpTask& task = tasks[thread_index() / kLanes];
      task = found;
      task.at.first_query += found.row_in_span();
    }
    __syncwarp();
  }
};

/// Slots that a block has room for, as many as a whole sequence needs.
inline int most_slots(std::int64_t bytes, std::int64_t row_bytes) {
  return static_cast<int>(
      std::min<std::int64_t>(bytes / slot_bytes(row_bytes), kMostOfWhole / kMmaTile));
}

/// A whole task's next item: the head's next block, or the next head's first one. `task` is in
/// shared memory, and the lanes of the warp have read it.
__device__ inline void go_to_next_item(WarpTask& task, int rows_a_block) {
  if (lane_index() == 0) {
    TilePair& at = task.at;
    at.first_query += rows_a_block;
    if (at.first_query - task.row_in_span() >= at.queries.count) {
      at.first_query = task.row_in_span();
      ++at.head;
    }
  }
  __syncwarp();
}

}  // namespace serrate
