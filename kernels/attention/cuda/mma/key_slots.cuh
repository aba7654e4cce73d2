#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/mma/head_rows.cuh"
#include "kernels/attention/cuda/tile_list.cuh"
#include "kernels/attention/cuda/warp_task.cuh"

namespace serrate {

/// Rows of keys that a slot holds, and of values, of so many bytes each: a tile, or half of one.
constexpr int slot_rows(std::int64_t row_bytes) {
  return row_bytes <= 512 ? kMmaTile : kMmaTile / 2;
}
constexpr std::int64_t slot_bytes(std::int64_t row_bytes) {
  return 2 * slot_rows(row_bytes) * row_bytes;
}

/// The parts of kRows keys and values that a block of kNumWarps has in shared memory, part t in
/// slot t % slots, and how it goes through them. A block that sees a part more than once has a
/// whole sequence, of few tiles.
template <int kDim, int kNumWarps, class Half>
class KeySlots {
 public:
  using List = TileList<kNumWarps>;
  using Rows = SwizzledRows<kDim, Half>;
  static constexpr int kRows = slot_rows(kDim * sizeof(Half));

  __device__ KeySlots(Half* data, int slots) : data_(data), slots_(slots) {}

  /// Before another sequence or head of keys.
  __device__ void forget() { held_ = 0; }

  /// Calls f(first key, what the warp sees of its tile, keys, values) for every part from
  /// first_tile on whose tile any warp of the block sees, all warps together, with the next one
  /// under way. Keys of a warp whose tile is shared are in one part, from first_row % kRows on.
  /// What a warp began to copy before is there when f is called. The block has read what the slots
  /// held.
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
      const int first = base * kParts;
      int now = list.next(0) * kParts;
      if (now < kEnd) hold(args, task, first + now);
      while (now < kEnd) {
        const bool has_part = is_whole_tile(task) || now == task.first_row / kRows;
        const TileClass seen = has_part ? list.of_warp(now / kParts) : TileClass{true, false};
        const int next = (now + 1) % kParts != 0 ? now + 1 : list.next((now + 1) / kParts) * kParts;
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();  // this tile is there, the one before has been read
        const bool has_room = (next - now) % slots_ != 0;
        if (next < kEnd && has_room) hold(args, task, first + next);
        Half* const slot = data_of(first + now);
        f(is_whole_tile(task) ? (first + now) * kRows : 0, seen, Rows{slot},
          Rows{slot + kRows * kDim});
        if (next < kEnd && !has_room) {
          __syncthreads();  // this part has been read
          hold(args, task, first + next);
        }
        now = next;
      }
    }
    copy_async_commit();
    copy_async_wait<0>();
  }

 private:
  static constexpr int kParts = kMmaTile / kRows, kEnd = List::kTiles * kParts;

  // Whether the keys of a warp have a tile to themselves, or a part to look for.
  __device__ static bool is_whole_tile(const WarpTask& task) {
    return kParts == 1 || task.span == kMmaTile;
  }
  __device__ Half* data_of(int part) const { return data_ + part % slots_ * 2 * kRows * kDim; }
  // Whether a part has to be copied, which then is held in place of the one in its slot.
  __device__ bool take(int part) {
    if (part >= 32) {
      held_ = 0;
      return true;
    }
    if ((held_ >> part & 1) != 0) return false;
    for (int other = part % slots_; other < 32; other += slots_) held_ &= ~(1u << other);
    held_ |= 1u << part;
    return true;
  }
  // Each warp copies the 16 rows of a tile that are its own, if the part has them: of four warps
  // both tensors', of eight one's.
  __device__ void hold(const AttentionView& args, const WarpTask& task, int part) {
    if (!take(part)) return;
    const TilePair& at = task.at;
    const int first_row = thread_index() / kLanes * kWarpRows, row_of_tile = first_row % kMmaTile;
    if (row_of_tile / kRows != part % kParts) return;
    const int row = row_of_tile % kRows, key = part * kRows + row - task.first_row;
    const std::int64_t token = at.in_keys + key, count = at.num_keys - key;
    const Rows keys{data_of(part)}, values{keys.data + kRows * kDim};
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
