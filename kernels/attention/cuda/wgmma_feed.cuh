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
// Of a thread: each of the 384 begins with 168. At head_dim 256 sums are 128 of them, and scores
// and weights 48.
inline constexpr int kQueryRegisters = 224, kOtherRegisters = 56;
static_assert(kGroups * kQueryRegisters + kOtherRegisters <= (kGroups + 1) * 168);

static_assert(kGroupRows == kMmaTile);

// Buffers: of lists, of a block's queries, of tiles of keys and of values.
inline constexpr int kPartSlots = 2;
template <int kDim>
inline constexpr int kQuerySlots = kDim <= 128 ? 2 : 1;
template <int kDim>
inline constexpr int kKeySlots = kDim <= 128 ? 4 : 2;
template <int kDim>
inline constexpr int kSharedBytes =
    (kQuerySlots<kDim> * kGroups + 2 * kKeySlots<kDim>)*kTileBytes<kDim>;

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

template <int kDim>
struct SharedState {
  Ring<kPartSlots> parts;
  Ring<kQuerySlots<kDim> * kGroups> queries;  // of each group by itself
  Ring<kKeySlots<kDim>> keys, values;
  Part slots[kPartSlots];
  WarpTask tasks[2];  // the last ones that the block took, in turn

  __device__ void init() {
    parts.init(kListingWarps, kQueryWarps + 1);
    queries.init(1, kGroupWarps);
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
    return data + (n % kQuerySlots<kDim> * kGroups + group) * kTileBytes<kDim>;
  }
  __device__ unsigned char* keys(unsigned n) const {
    return data + (kQuerySlots<kDim> * kGroups + n % kKeySlots<kDim>)*kTileBytes<kDim>;
  }
  __device__ unsigned char* values(unsigned n) const {
    return keys(n) + kKeySlots<kDim> * kTileBytes<kDim>;
  }
};

// The block's next task; without items if there is none. Blocks take one when they are ready for
// it; of a sequence and head those with the last queries come first, as these mostly see more keys.
// The list counts by the rows of forward_mma.cu's blocks: of its tasks that are one here, the
// first.
template <int kDim>
__device__ void take_task(const AttentionView& args, const WorkList& work, Counter* next_task,
                          WarpTask& task) {
  constexpr int kRows = kWarpRows * warps_for_long(kDim);
  static_assert(kQueries % kRows == 0);
  const TaskNumbers numbers{work.forward, TaskNumbers::Rows::kQueries, kRows, args.num_heads, 1};
  const TaskRange range = all_tasks(args, work, numbers);
  WarpTask found;
  TilePair& at = found.at;
  do {
    found = {};
    const auto index = static_cast<std::int64_t>(atomicAdd(next_task, Counter{1}));
    if (index >= work.forward[work.counts[4]]) break;
    found = task_at(args, work, numbers, range, index);
  } while (at.first_query % kQueries != 0);
  at.first_query = (at.queries.count - 1) / kQueries * kQueries - at.first_query;
  task = found;
}

// What the three listing warps do: one part after the other, for the warps of the queries in turn.
template <int kDim>
__device__ void list_parts(const AttentionView& args, const WorkList& work, Counter* next_task,
                           SharedState<kDim>& state, int number) {
  using List = TileList<kQueryWarps>;
  const bool is_first = number == 0 && lane_index() == 0;
  unsigned n = 0;
  for (unsigned i = 0;; ++i) {
    // In shared memory, as there are few registers.
    WarpTask& task = state.tasks[i % 2];
    if (is_first) take_task<kDim>(args, work, next_task, task);
    named_barrier_sync(kListingBarrier, kListingWarps * kLanes);
    if (task.items == 0) break;
    for (int tile = 0; tile == 0 || tile * kMmaTile < task.at.num_keys; tile += List::kTiles, ++n) {
      Mbarrier* const full = state.parts.wait_empty(n);
      Part& part = state.slots[n % kPartSlots];
      if (is_first) {
        part.at = task.at;
        part.key_head = task.key_head;
        part.first_tile = tile;
        part.ends = (tile + List::kTiles) * kMmaTile >= task.at.num_keys;
        part.is_none = false;
      }
      for (int warp = number; warp < kQueryWarps; warp += kListingWarps) {
        const int first_query = static_cast<int>(task.at.first_query) + warp * kWarpRows;
        KeyRanges* const ranges = part.ranges + warp * kWarpRows;
        set_key_ranges(args, task.at, first_query, ranges);
        const int left = static_cast<int>(task.at.queries.count) - first_query;
        part.list.fill(args, task.at, ranges, first_query, left < kWarpRows ? left : kWarpRows,
                       tile, warp);
      }
      __syncwarp();
      if (lane_index() == 0) mbarrier_arrive(full);
    }
  }
  Mbarrier* const full = state.parts.wait_empty(n);
  if (is_first) state.slots[n % kPartSlots].is_none = true;
  if (lane_index() == 0) mbarrier_arrive(full);
}

// What one thread does: all copies, as far ahead as there are buffers.
template <int kDim>
__device__ void load_parts(const CUtensorMap* q, const CUtensorMap* k, const CUtensorMap* v,
                           SharedState<kDim>& state, Tiles<kDim> tiles) {
  using List = TileList<kQueryWarps>;
  unsigned t = 0;
  for (unsigned n = 0;; ++n) {
    state.parts.wait_full(n);
    const Part& part = state.slots[n % kPartSlots];
    if (part.is_none) return;
    const TilePair& at = part.at;
    int tile = part.list.next(0);
    const auto load_keys = [&] {
      const std::int64_t key = static_cast<std::int64_t>(part.first_tile + tile) * kMmaTile;
      const auto load = [&](unsigned char* to, const CUtensorMap* map, Mbarrier* full) {
        mbarrier_arrive_expecting(full, kTileBytes<kDim>);
        load_tile<kDim>(to, map, at.in_keys + key, at.num_keys - key, part.key_head, full);
      };
      load(tiles.keys(t), k, state.keys.wait_empty(t));
      load(tiles.values(t), v, state.values.wait_empty(t));
      tile = part.list.next(tile + 1), ++t;
    };
    // The first ones come before queries, which may have to wait for the end of the part before.
    if (tile < List::kTiles) load_keys();
    for (int group = 0; group < kGroups; ++group) {
      const std::int64_t first = at.first_query + group * kGroupRows;
      Mbarrier* const full = state.queries.wait_empty(n * kGroups + group);
      const bool has_queries = first < at.queries.count;
      mbarrier_arrive_expecting(full, has_queries ? kTileBytes<kDim> : 0);
      if (!has_queries) continue;
      load_tile<kDim>(tiles.queries(n, group), q, at.queries.in_q + first, at.queries.count - first,
                      at.head, full);
    }
    while (tile < List::kTiles) load_keys();
    state.parts.arrive_empty(n);
  }
}

#endif

}  // namespace serrate
