#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/fp8.cuh"
#include "kernels/attention/cuda/tile_list.cuh"
#include "kernels/attention/cuda/warp_task.cuh"
#include "kernels/attention/cuda/wgmma/tiles.cuh"
#include "kernels/attention/cuda/work_list.h"
#include "kernels/cuda/ring.cuh"

// What keeps the warps of the queries of wgmma/forward.cu busy: lists of tiles, and copies.

namespace serrate {

inline constexpr int kGroupWarps = 4, kGroups = 2, kGroupRows = kGroupWarps * kWarpRows;
inline constexpr int kQueryWarps = kGroups * kGroupWarps, kBlockWarps = kQueryWarps + kGroupWarps;
// Registers: each of the 384 threads begins with 168. At head_dim 256, 128 are sums, and scores
// and weights 48.
inline constexpr int kQueryRegisters = 224, kOtherRegisters = 56;
static_assert(kGroups * kQueryRegisters + kOtherRegisters <= (kGroups + 1) * 168);

static_assert(kGroupRows == kMmaTile);

inline constexpr int kPartSlots = 2;  // of lists

/// What a block has in shared memory for tokens of halves: columns of a row, in halves, and buffers
/// of queries, of tiles of keys and of values.
template <int kHeadDim>
struct HalfTiles {
  static constexpr int kDim = kHeadDim, kQueryColumns = kDim, kColumns = kDim;
  static constexpr int kQuerySlots = kDim <= 128 ? 2 : 1, kKeySlots = kDim <= 128 ? 4 : 2;
  static constexpr bool kTransposes = false;
};
/// And of e4m3, whose values come to kRawSlots buffers and are transposed from there, as wgmma
/// takes both sides of e4m3 by rows that it sums over. That reads and writes a tile of values once
/// in shared memory, where products read it and the keys twice; other memory has them as they are.
inline constexpr int kRawSlots = 2;
template <int kHeadDim>
struct Fp8Tiles {
  static constexpr int kDim = kHeadDim, kColumns = kDim / 2;
  static constexpr int kQueryColumns = fp8_terms_of_queries(kDim) * kColumns;
  static constexpr int kQuerySlots = 2, kKeySlots = kDim <= 128 ? 4 : 3;
  static constexpr bool kTransposes = true;
};
template <class Elements>
inline constexpr int kSharedBytes =
    Elements::kQuerySlots * kGroups * kTileBytes<Elements::kQueryColumns> +
    (2 * Elements::kKeySlots + (Elements::kTransposes ? kRawSlots : 0)) *
        kTileBytes<Elements::kColumns>;

/// A call of halves; that of e4m3 is Fp8Call.
struct HalfCall {
  AttentionView attention;
};

#ifdef SERRATE_WGMMA

inline constexpr int kQueries = kGroups * kGroupRows;
/// The warps of the third group: one copies, one transposes values if they have to be, the others
/// list.
template <class Elements>
inline constexpr int kListingWarps = kGroupWarps - 1 - (Elements::kTransposes ? 1 : 0);
// Named barriers: of a group's warps, of its turn to multiply, and of the listing warps.
__device__ inline unsigned group_barrier(int group) {
  return 1 + group;
}
__device__ inline unsigned turn_barrier(int group) {
  return 1 + kGroups + group;
}
inline constexpr unsigned kListingBarrier = 1 + 2 * kGroups;

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

template <class Elements>
struct SharedState {
  static constexpr int kQuerySlots = Elements::kQuerySlots * kGroups;
  static constexpr int kKeySlots = Elements::kKeySlots;
  Ring<kPartSlots> parts;
  Ring<kQuerySlots> queries;  // of each group by itself
  Ring<kKeySlots> keys, values;
  Ring<kRawSlots> raw;  // values that are to be transposed
  Part slots[kPartSlots];
  // In e4m3, scales of a group's queries; of keys and values.
  float query_scales[kQuerySlots];
  float2 tile_scales[kKeySlots];
  WarpTask tasks[2];  // the last ones that the block took, in turn

  __device__ void init() {
    parts.init(kListingWarps<Elements>, kQueryWarps + kGroupWarps - kListingWarps<Elements>);
    queries.init(1, kGroupWarps);
    keys.init(1, kQueryWarps);
    values.init(1, kQueryWarps);
    raw.init(1, 1);
    fence_mbarrier_init();
  }
};

// The tiles in dynamic shared memory.
template <class Elements>
struct Tiles {
  static constexpr int kQueryBytes = kTileBytes<Elements::kQueryColumns>;
  static constexpr int kBytes = kTileBytes<Elements::kColumns>, kSlots = Elements::kKeySlots;
  unsigned char* data;

  __device__ unsigned char* queries(unsigned n, int group) const {
    return data + (n % Elements::kQuerySlots * kGroups + group) * kQueryBytes;
  }
  __device__ unsigned char* keys(unsigned n) const {
    return data + Elements::kQuerySlots * kGroups * kQueryBytes + n % kSlots * kBytes;
  }
  __device__ unsigned char* values(unsigned n) const { return keys(n) + kSlots * kBytes; }
  __device__ unsigned char* raw(unsigned n) const {
    return keys(0) + (2 * kSlots + n % kRawSlots) * kBytes;
  }
};

// The block's next task; without items if there is none. Blocks take one when they are ready for
// it; of a sequence and head those with the last queries come first, as these mostly see more keys.
// The list counts by the rows of mma/forward.cu's blocks: of its tasks that are one here, the
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

// What the listing warps do: one part after the other, for the warps of the queries in turn.
template <class Elements>
__device__ void list_parts(const AttentionView& args, const WorkList& work, Counter* next_task,
                           SharedState<Elements>& state, int number) {
  constexpr int kListing = kListingWarps<Elements>;
  using List = TileList<kQueryWarps>;
  const bool is_first = number == 0 && lane_index() == 0;
  unsigned n = 0;
  for (unsigned i = 0;; ++i) {
    // In shared memory, as there are few registers.
    WarpTask& task = state.tasks[i % 2];
    if (is_first) take_task<Elements::kDim>(args, work, next_task, task);
    named_barrier_sync(kListingBarrier, kListing * kLanes);
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
      for (int warp = number; warp < kQueryWarps; warp += kListing) {
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

// Calls f(its number, part) for every part, as they are listed; one lane then says that it has
// been read. Called by one lane, or by a warp whose f ends in __syncwarp().
template <class Elements, typename F>
__device__ void for_each_part(SharedState<Elements>& state, F&& f) {
  for (unsigned n = 0;; ++n) {
    state.parts.wait_full(n);
    const Part& part = state.slots[n % kPartSlots];
    if (part.is_none) return;
    f(n, part);
    if (lane_index() == 0) state.parts.arrive_empty(n);
  }
}

// What one thread does: all copies, as far ahead as there are buffers.
template <class Elements>
__device__ void load_parts(const typename Elements::Call& call, const CUtensorMap* q,
                           const CUtensorMap* k, const CUtensorMap* v, SharedState<Elements>& state,
                           Tiles<Elements> tiles) {
  using List = TileList<kQueryWarps>;
  unsigned t = 0;
  for_each_part(state, [&](unsigned n, const Part& part) {
    const TilePair& at = part.at;
    int tile = part.list.next(0);
    const auto load_keys = [&] {
      const std::int64_t key = static_cast<std::int64_t>(part.first_tile + tile) * kMmaTile;
      const auto load = [&](unsigned char* to, const CUtensorMap* map, Mbarrier* when) {
        mbarrier_arrive_expecting(when, Tiles<Elements>::kBytes);
        load_tile<Elements::kColumns>(to, {map, at.in_keys + key, at.num_keys - key, part.key_head},
                                      when);
      };
      Mbarrier* const full = state.keys.wait_empty(t);
      // What is written before the arrival is there when the barrier has completed.
      if constexpr (Elements::kTransposes) {
        state.tile_scales[t % Elements::kKeySlots] = scales_of_keys(
            call, part.key_head,
            first_fp8_block(call.attention.key_offsets, at.sequence) + part.first_tile + tile);
        load(tiles.keys(t), k, full);
        load(tiles.raw(t), v, state.raw.wait_empty(t));
      } else {
        load(tiles.keys(t), k, full);
        load(tiles.values(t), v, state.values.wait_empty(t));
      }
      tile = part.list.next(tile + 1), ++t;
    };
    // The first ones come before queries, which may have to wait for the end of the part before.
    if (tile < List::kTiles) load_keys();
    for (int group = 0; group < kGroups; ++group) {
      const std::int64_t first = at.first_query + group * kGroupRows;
      Mbarrier* const full = state.queries.wait_empty(n * kGroups + group);
      const bool has_queries = first < at.queries.count;
      if constexpr (Elements::kTransposes) {
        state.query_scales[(n * kGroups + group) % SharedState<Elements>::kQuerySlots] =
            scale_of_queries(call, at, first);
      }
      mbarrier_arrive_expecting(full, has_queries ? Tiles<Elements>::kQueryBytes : 0);
      if (!has_queries) continue;
      load_tile<Elements::kQueryColumns>(
          tiles.queries(n, group), {q, at.queries.in_q + first, at.queries.count - first, at.head},
          full);
    }
    while (tile < List::kTiles) load_keys();
  });
}

// A tile of 64 rows of kDim columns of e4m3 becomes kDim rows of 64 keys, 64 bytes swizzled as
// wgmma reads them. ldmatrix transposes pairs of bytes: a lane gets two columns of two keys from
// each 8 x 8 matrix, and bytes permuted make of two of these four keys of either column: 2q, 2q +
// 1, 2q + 8 and 2q + 9, the ones that the lane of the same number has weights of. They follow one
// another there. Of 16 columns the even ones come first, so that 8 rows that are written at once
// follow one another.
template <int kDim>
__device__ void transpose_tile(const unsigned char* from, unsigned char* to) {
  constexpr int kPanel = std::min(kDim / 2, kPanelColumns);  // in halves
  using Panel = SwizzledRows<kPanel>;
  const SwizzledRows<kMmaTile / 2> rows{reinterpret_cast<__nv_bfloat16*>(to)};
  const int lane = lane_index(), g = lane / 4, q = lane % 4;
#pragma unroll 4
  for (int i = 0; i < 2 * kDim / 16; ++i) {
    const int chunk = i / 2, half = i % 2;  // of 16 columns, of the keys
    const Panel panel{const_cast<__nv_bfloat16*>(
        reinterpret_cast<const __nv_bfloat16*>(from + chunk / Panel::kChunks * kPanelBytes))};
    std::uint32_t pairs[4];
    load_matrices_transposed(pairs, panel.at(32 * half + lane, chunk % Panel::kChunks));
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int keys = j / 2 * 2;  // the first or the second 16
      const std::uint32_t four =
          __byte_perm(pairs[keys], pairs[keys + 1], j % 2 == 0 ? 0x6420 : 0x7531);
      const int row = 16 * chunk + j % 2 * 8 + g;
      reinterpret_cast<std::uint32_t*>(rows.at(row, 2 * half + j / 2))[q] = four;
    }
  }
}

// What one warp does: all tiles of values, as they come.
template <class Elements>
__device__ void transpose_parts(SharedState<Elements>& state, Tiles<Elements> tiles) {
  using List = TileList<kQueryWarps>;
  unsigned t = 0;
  for_each_part(state, [&](unsigned, const Part& part) {
    for (int tile = part.list.next(0); tile < List::kTiles; tile = part.list.next(tile + 1), ++t) {
      state.raw.wait_full(t);
      Mbarrier* const full = state.values.wait_empty(t);
      transpose_tile<Elements::kDim>(tiles.raw(t), tiles.values(t));
      fence_async_proxy_shared();
      __syncwarp();
      if (lane_index() == 0) {
        state.raw.arrive_empty(t);
        mbarrier_arrive(full);
      }
    }
    __syncwarp();
  });
}

#endif

}  // namespace serrate
