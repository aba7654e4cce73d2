#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/tile_list.cuh"
#include "kernels/attention/cuda/wgmma_tiles.cuh"
#include "kernels/attention/cuda/work_list.h"
#include "kernels/cuda/ring.cuh"

// What keeps the warps of the queries of forward_wgmma.cu busy: lists of tiles, and copies.

namespace serrate {

inline constexpr int kGroupWarps = 4, kGroups = 2, kGroupRows = kGroupWarps * kWarpRows;
inline constexpr int kQueryWarps = kGroups * kGroupWarps, kBlockWarps = kQueryWarps + kGroupWarps;
// Of a thread: each of the 384 begins with 168.
inline constexpr int kQueryRegisters = 200, kOtherRegisters = 104;
static_assert(kGroups * kQueryRegisters + kOtherRegisters <= (kGroups + 1) * 168);

static_assert(kGroupRows == kMmaTile);

inline constexpr int kTaskSlots = 2;
inline constexpr int kKeySlots = 4;
template <int kDim>
inline constexpr int kSharedBytes = (kTaskSlots * kGroups + 2 * kKeySlots) * kTileBytes<kDim>;

#ifdef SERRATE_WGMMA

inline constexpr int kQueries = kGroups * kGroupRows, kListingWarps = kGroupWarps - 1;
inline constexpr unsigned kListingBarrier = 1 + 2 * kGroups;  // behind those of the groups

// Queries of a block and up to TileList::kTiles tiles of keys, from first_tile on: a task, or a
// part of one.
struct Part {
  TilePair at;  // of the block
  std::int64_t key_head;
  int first_tile;
  bool ends;     // its task
  bool is_none;  // there are no more
  TileList<kQueryWarps> list;
  KeyRanges ranges[kQueries];
};

struct SharedState {
  Ring<kTaskSlots> parts, queries;
  Ring<kKeySlots> keys, values;
  Part slots[kTaskSlots];
  std::int64_t tasks[2];  // the last ones that the block took, in turn

  __device__ void init() {
    parts.init(kListingWarps, kQueryWarps + 1);
    queries.init(1, kQueryWarps);
    keys.init(1, kQueryWarps);
    values.init(1, kQueryWarps);
    fence_mbarrier_init();
  }
};

// The tiles in dynamic shared memory.
template <int kDim>
struct Tiles {
  unsigned char* data;

  __device__ unsigned char* queries(unsigned n, int group) const {
    return data + (n % kTaskSlots * kGroups + group) * kTileBytes<kDim>;
  }
  __device__ unsigned char* keys(unsigned n) const {
    return data + (kTaskSlots * kGroups + n % kKeySlots) * kTileBytes<kDim>;
  }
  __device__ unsigned char* values(unsigned n) const {
    return keys(n) + kKeySlots * kTileBytes<kDim>;
  }
};

// What the three listing warps do: one part after the other, for the warps of the queries in turn.
// Blocks take the next task when they are ready for it; of a sequence and head those with the last
// queries come first, as these mostly see more keys.
__device__ inline void list_parts(const AttentionView& args, const WorkList& work,
                                  Counter* next_task, SharedState& state, int number) {
  using List = TileList<kQueryWarps>;
  const TaskNumbers numbers{work.forward, TaskNumbers::Rows::kQueries, kQueries, args.num_heads, 1};
  const TaskRange range = all_tasks(args, work, numbers);
  const std::int64_t end = work.forward[work.counts[4]];
  const bool is_first = number == 0 && lane_index() == 0;
  unsigned n = 0;
  for (unsigned i = 0;; ++i) {
    if (is_first) state.tasks[i % 2] = static_cast<std::int64_t>(atomicAdd(next_task, Counter{1}));
    named_barrier_sync(kListingBarrier, kListingWarps * kLanes);
    const std::int64_t index = state.tasks[i % 2];
    if (index >= end) break;
    const WarpTask task = task_at(args, work, numbers, range, index);
    TilePair at = task.at;
    at.first_query = (at.queries.count - 1) / kQueries * kQueries - at.first_query;
    for (int tile = 0; tile == 0 || tile * kMmaTile < at.num_keys; tile += List::kTiles, ++n) {
      Mbarrier* const full = state.parts.wait_empty(n);
      Part& part = state.slots[n % kTaskSlots];
      if (is_first) {
        part.at = at;
        part.key_head = task.key_head;
        part.first_tile = tile;
        part.ends = (tile + List::kTiles) * kMmaTile >= at.num_keys;
        part.is_none = false;
      }
      for (int warp = number; warp < kQueryWarps; warp += kListingWarps) {
        TilePair rows = at;
        rows.first_query += warp * kWarpRows;
        KeyRanges* const ranges = part.ranges + warp * kWarpRows;
        set_key_ranges(args, rows, ranges);
        const std::int64_t left = at.queries.count - rows.first_query;
        part.list.fill(args, at, ranges, rows.first_query,
                       static_cast<int>(std::min<std::int64_t>(left, kWarpRows)), tile, warp);
      }
      __syncwarp();
      if (lane_index() == 0) mbarrier_arrive(full);
    }
  }
  Mbarrier* const full = state.parts.wait_empty(n);
  if (is_first) state.slots[n % kTaskSlots].is_none = true;
  if (lane_index() == 0) mbarrier_arrive(full);
}

// What one thread does: all copies, as far ahead as there are buffers.
template <int kDim>
__device__ void load_parts(const CUtensorMap* q, const CUtensorMap* k, const CUtensorMap* v,
                           SharedState& state, Tiles<kDim> tiles) {
  using List = TileList<kQueryWarps>;
  unsigned t = 0;
  for (unsigned n = 0;; ++n) {
    state.parts.wait_full(n);
    const Part& part = state.slots[n % kTaskSlots];
    if (part.is_none) return;
    const TilePair& at = part.at;
    const std::int64_t queries = at.queries.count - at.first_query;
    const int groups = queries > kGroupRows ? 2 : 1;
    Mbarrier* full = state.queries.wait_empty(n);
    mbarrier_arrive_expecting(full, groups * kTileBytes<kDim>);
    for (int group = 0; group < groups; ++group) {
      const int row = group * kGroupRows;
      load_tile<kDim>(tiles.queries(n, group), q, at.queries.in_q + at.first_query + row,
                      queries - row, at.head, full);
    }
    for (int tile = part.list.next(0); tile < List::kTiles; tile = part.list.next(tile + 1), ++t) {
      const std::int64_t key = static_cast<std::int64_t>(part.first_tile + tile) * kMmaTile;
      const auto load = [&](unsigned char* to, const CUtensorMap* map, Mbarrier* when) {
        mbarrier_arrive_expecting(when, kTileBytes<kDim>);
        load_tile<kDim>(to, map, at.in_keys + key, at.num_keys - key, part.key_head, when);
      };
      load(tiles.keys(t), k, state.keys.wait_empty(t));
      load(tiles.values(t), v, state.values.wait_empty(t));
    }
    state.parts.arrive_empty(n);
  }
}

#endif

}  // namespace serrate
