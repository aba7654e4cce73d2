#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/attention/cuda/mma/gradients.cuh"
#include "kernels/attention/cuda/wgmma/tiles.cuh"
#include "kernels/cuda/ring.cuh"

// What keeps the warps of wgmma/backward.cu busy that multiply: lists of tiles, and copies. The
// forward's have the same names (wgmma/feed.cuh).

namespace serrate::backward_wgmma {

/// What a kernel sums: d_q, or d_k and d_v. At head_dim 256, where registers have room for one sum,
/// d_k and d_v are two kernels'.
enum class Sums { kQueries, kKeysAndValues, kKeys, kValues };
/// Whose rows a block owns: queries with d_out, or keys with values (of d_v alone without). Tiles
/// of the other side go by.
enum class Side { kQueries, kKeys };
constexpr Side side_of(Sums sums) {
  return sums == Sums::kQueries ? Side::kQueries : Side::kKeys;
}
/// Whether gradients of scores are summed, for which values meet d_out, and whether weights are.
constexpr bool has_score_gradients(Sums sums) {
  return sums != Sums::kValues;
}
constexpr bool has_weights(Sums sums) {
  return sums == Sums::kKeysAndValues || sums == Sums::kValues;
}

/// A warpgroup owns 64 rows, and a block two of those.
inline constexpr int kGroupWarps = 4, kGroups = 2, kOwnerWarps = kGroups * kGroupWarps;
inline constexpr int kBlockWarps = kOwnerWarps + kGroupWarps;
static_assert(kGroups * kMmaTile == kLongestRows);

inline constexpr int kTaskSlots = 2;
constexpr int own_tensors(Sums sums) {
  return sums == Sums::kValues ? 1 : 2;
}
/// Buffers of owned rows: where there is room, those of the next task come ahead.
constexpr int row_slots(int head_dim, Sums sums) {
  return head_dim <= 128 || own_tensors(sums) == 1 ? 2 : 1;
}
/// A tile that goes by is pieces of up to 128 columns of one of its two tensors, in the order in
/// which products take these first.
constexpr int piece_columns(int head_dim) {
  return head_dim <= 128 ? head_dim : 128;
}
template <int kDim>
inline constexpr int kPieceBytes = kTileBytes<piece_columns(kDim)>;
constexpr int pieces_of_tensor(int head_dim) {
  return head_dim / piece_columns(head_dim);
}
constexpr int pieces_of_tile(int head_dim) {
  return 2 * pieces_of_tensor(head_dim);
}
/// Tensor 0 is queries or keys, 1 is d_out or values.
constexpr int first_tensor(Sums sums) {
  return has_score_gradients(sums) ? 1 : 0;
}
/// Pieces under way: as many as there is shared memory for.
constexpr int piece_slots(int head_dim) {
  return head_dim <= 64 ? 8 : 5;
}
template <int kDim, Sums kSums>
inline constexpr int kSharedBytes =
    row_slots(kDim, kSums) * own_tensors(kSums) * kGroups * kTileBytes<kDim> +
    piece_slots(kDim) * kPieceBytes<kDim>;

#ifdef SERRATE_WGMMA

inline constexpr int kListingWarps = kGroupWarps - 1;
inline constexpr unsigned kListingBarrier = 1 + kGroups;  // behind those of the groups

/// What is to be known of queries besides their rows.
template <int kCount>
struct QueryRows {
  KeyRanges ranges[kCount];
  QuerySums sums[kCount];
};

/// A tile of queries that goes by.
struct QueryTile : QueryRows<kMmaTile> {
  TilePair at;
};
struct KeyTile {};

/// Rows of a block and up to TileList::kTiles tiles of the other side, from first_tile on, in each
/// head that shares the keys: a task, or a part of one.
template <Side kSide>
struct Part {
  TilePair at;  // of the block; its head is the first one
  std::int64_t key_head;
  int heads;
  int first_tile;
  bool ends;     // its task
  bool is_none;  // there are no more
  TileList<kOwnerWarps> list;
  QueryRows<kSide == Side::kQueries ? kLongestRows : 1> own;
};

template <int kDim, Sums kSums>
struct SharedState {
  static constexpr Side kSide = side_of(kSums);
  static constexpr int kRowSlots = row_slots(kDim, kSums) * kGroups;
  static constexpr int kPieceSlots = piece_slots(kDim);
  // What is known of a tile of queries may be read until its last piece is free. When the first
  // piece of a tile has a slot, the piece kPieceSlots before it is free, and so is the last one of
  // the tile kTileSlots before.
  static constexpr int kPieces = pieces_of_tile(kDim);
  static constexpr int kTileSlots = (kPieceSlots + 2 * kPieces - 2) / kPieces;
  Ring<kTaskSlots> parts;
  Ring<kRowSlots> rows;  // of each group by itself
  Ring<kPieceSlots> pieces;
  Part<kSide> slots[kTaskSlots];
  std::conditional_t<kSide == Side::kKeys, QueryTile, KeyTile> others[kTileSlots];
  std::int64_t tasks[2];           // the last ones that the block took, in turn
  WarpTask listed[kListingWarps];  // where each listing warp is

  __device__ void init() {
    parts.init(kListingWarps, kOwnerWarps + 1);
    rows.init(1, kGroupWarps);
    pieces.init(1, kOwnerWarps);
    fence_mbarrier_init();
  }
};

/// The tiles in dynamic shared memory.
template <int kDim, Sums kSums>
struct GradientTiles {
  static constexpr int kRowSlots = row_slots(kDim, kSums), kTensors = own_tensors(kSums);
  unsigned char* data;

  __device__ unsigned char* own(unsigned n, int tensor, int group) const {
    return data + ((n % kRowSlots * kTensors + tensor) * kGroups + group) * kTileBytes<kDim>;
  }
  __device__ unsigned char* piece(unsigned p) const {
    return data + kRowSlots * kTensors * kGroups * kTileBytes<kDim> +
           p % piece_slots(kDim) * kPieceBytes<kDim>;
  }
};

/// Where the pieces of a tensor begin among those of a tile.
template <int kDim, Sums kSums>
constexpr unsigned first_piece(int tensor) {
  return tensor == first_tensor(kSums) ? 0 : pieces_of_tensor(kDim);
}

/// Log-sum-exp and delta of 16 queries, to shared memory, and delta for the blocks that own keys.
template <int kDim, class Half>
__device__ void sum_queries_of_block(const AttentionBackwardView& call, const TilePair& at,
                                     std::int64_t first_query, int count, float* deltas,
                                     QuerySums* sums) {
  const AttentionView& args = call.forward;
  constexpr int kLanesARow = 8, kRowsAtOnce = kLanes / kLanesARow;
  const int lane = lane_index();
  const HeadsView<const Half> out = view_as<Half>(InputHeads(args.out)),
                              d_out = view_as<Half>(call.d_out);
#pragma unroll 1
  for (int first = 0; first < kWarpRows; first += kRowsAtOnce) {
    const int row = first + lane / kLanesARow;
    const std::int64_t token = at.queries.in_out + first_query + row;
    float delta = 0;
    if (is_softmax(args) && row < count) {
#pragma unroll 2
      for (int chunk = lane % kLanesARow; chunk < kDim / 8; chunk += kLanesARow) {
        delta += multiply_chunks(d_out.at(token, at.head) + chunk * 8,
                                 out.at(token, at.head) + chunk * 8);
      }
    }
#pragma unroll
    for (int lanes = 1; lanes < kLanesARow; lanes *= 2) {
      delta += __shfl_xor_sync(~0u, delta, lanes);
    }
    if (lane % kLanesARow != 0) continue;
    QuerySums of_row = query_sums(args, at, first_query + row, nullptr);
    of_row.delta = delta;
    sums[row] = of_row;
    if (is_softmax(args) && row < count) {
      deltas[at.head * static_cast<std::int64_t>(args.lse.size()) / args.num_heads + token] = delta;
    }
  }
}

/// What the three listing warps do: one part after the other, for the warps of the groups in turn.
/// Blocks take the next task when they are ready for it; of a sequence and head first those that
/// see more with a causal mask: the last queries, the first keys.
template <int kDim, class Half, Sums kSums>
__device__ void list_parts(const AttentionBackwardView& call, const WorkList& work,
                           Counter* next_task, float* deltas, SharedState<kDim, kSums>& state,
                           int number) {
  const AttentionView& args = call.forward;
  using List = TileList<kOwnerWarps>;
  constexpr Side kSide = side_of(kSums);
  constexpr bool kOwnsQueries = kSide == Side::kQueries;
  const int group = static_cast<int>(heads_per_key_head(args));
  const TaskNumbers numbers = kOwnsQueries
                                  ? TaskNumbers{work.longest_queries, TaskNumbers::Rows::kQueries,
                                                kLongestRows, args.num_heads, 1}
                                  : TaskNumbers{work.longest_keys, TaskNumbers::Rows::kKeys,
                                                kLongestRows, args.num_key_heads, group};
  const std::int64_t end = numbers.first_task[batch_size_of(args)];
  const TaskRange range{0, end, end};
  const bool is_first = number == 0 && lane_index() == 0;
  unsigned n = 0;
  for (unsigned i = 0;; ++i) {
    if (is_first) state.tasks[i % 2] = static_cast<std::int64_t>(atomicAdd(next_task, Counter{1}));
    named_barrier_sync(kListingBarrier, kListingWarps * kLanes);
    const std::int64_t index = state.tasks[i % 2];
    if (index >= end) break;
    const WarpTask found = task_at(args, work, numbers, range, index);
    WarpTask& task = state.listed[number];
    if (lane_index() == 0) {
      task = found;
      const std::int64_t last = (found.at.queries.count - 1) / kLongestRows * kLongestRows;
      task.at.first_query = kOwnsQueries ? last - found.at.first_query : 0;
    }
    __syncwarp();
    const TilePair& at = task.at;
    const std::int64_t others = kOwnsQueries ? at.num_keys : at.queries.count;
    for (int first = 0; first == 0 || first * kMmaTile < others; first += List::kTiles, ++n) {
      Mbarrier* const full = state.parts.wait_empty(n);
      Part<kSide>& part = state.slots[n % kTaskSlots];
      if (is_first) {
        part.at = at;
        part.key_head = task.key_head;
        part.heads = kOwnsQueries ? 1 : group;
        part.first_tile = first;
        part.ends = (first + List::kTiles) * kMmaTile >= others;
        part.is_none = false;
      }
      // Ranges of each warp's queries, or of each group's keys and 16 rows of tiles of queries.
#pragma unroll 1
      for (int warp = number; warp < kOwnerWarps; warp += kListingWarps) {
        if constexpr (kOwnsQueries) {
          const std::int64_t first_query = at.first_query + warp * kWarpRows;
          const int count = static_cast<int>(
              std::clamp<std::int64_t>(at.queries.count - first_query, 0, kWarpRows));
          KeyRanges* const ranges = part.own.ranges + warp * kWarpRows;
          set_key_ranges(args, at, first_query, ranges);
          sum_queries_of_block<kDim, Half>(call, at, first_query, count, deltas,
                                           part.own.sums + warp * kWarpRows);
          part.list.fill(args, at, ranges, first_query, count, first, warp);
        } else {
          const std::int64_t first_key = at.first_key + warp / kGroupWarps * kMmaTile;
          const int row = warp % kGroupWarps * kWarpRows;
          part.list.fill(
              args, at, warp,
              [&](int tile) -> RunAndTile {
                const std::int64_t query = std::int64_t{first + tile} * kMmaTile + row;
                const auto count = static_cast<int>(
                    std::clamp<std::int64_t>(at.queries.count - query, 0, kWarpRows));
                return {query, count, static_cast<int>(first_key)};
              },
              [&](const RunAndTile& pair) {
                return bounds_of_ends(args, at, pair.first_query, pair.count);
              },
              [&](const RunAndTile& pair) {
                return key_ranges(args, at, pair.first_query + lane_index());
              });
        }
      }
      __syncwarp();
      if (lane_index() == 0) mbarrier_arrive(full);
    }
  }
  Mbarrier* const full = state.parts.wait_empty(n);
  if (is_first) state.slots[n % kTaskSlots].is_none = true;
  if (lane_index() == 0) mbarrier_arrive(full);
}

/// Rows of a sequence and head in one of its tensors, from one row on.
template <Side kSide>
__device__ RowsToCopy rows_of(const TokenMaps& maps, const TilePair& at, std::int64_t key_head,
                              int tensor, std::int64_t row) {
  if constexpr (kSide == Side::kQueries) {
    return {tensor == 0 ? &maps.q : &maps.d_out,
            (tensor == 0 ? at.queries.in_q : at.queries.in_out) + row, at.queries.count - row,
            at.head};
  } else {
    return {tensor == 0 ? &maps.k : &maps.v, at.in_keys + row, at.num_keys - row, key_head};
  }
}

/// What the fourth warp does: all copies, as far ahead as there are buffers, and with tiles of
/// queries what is to be known of them.
template <int kDim, Sums kSums>
__device__ void load_parts(const AttentionView& args, const TokenMaps& maps, const float* deltas,
                           SharedState<kDim, kSums>& state, GradientTiles<kDim, kSums> tiles) {
  using List = TileList<kOwnerWarps>;
  constexpr Side kSide = side_of(kSums);
  constexpr Side kOther = kSide == Side::kQueries ? Side::kKeys : Side::kQueries;
  const int lane = lane_index();
  unsigned t = 0;
  for (unsigned n = 0;; ++n) {
    state.parts.wait_full(n);
    const Part<kSide>& part = state.slots[n % kTaskSlots];
    if (part.is_none) return;
    const TilePair& at = part.at;
    for (int group = 0; group < kGroups; ++group) {
      if (lane > 0) continue;
      Mbarrier* const full = state.rows.wait_empty(n * kGroups + group);
      const std::int64_t row =
          (kSide == Side::kQueries ? at.first_query : at.first_key) + group * kMmaTile;
      const bool has_rows = rows_of<kSide>(maps, at, part.key_head, 0, row).count > 0;
      mbarrier_arrive_expecting(full, has_rows ? own_tensors(kSums) * kTileBytes<kDim> : 0);
      for (int tensor = 0; has_rows && tensor < own_tensors(kSums); ++tensor) {
        load_tile<kDim>(tiles.own(n, tensor, group),
                        rows_of<kSide>(maps, at, part.key_head, tensor, row), full);
      }
    }
    for (int head = 0; head < part.heads; ++head) {
      for (int tile = part.list.next(0); tile < List::kTiles;
           tile = part.list.next(tile + 1), ++t) {
        const std::int64_t row = std::int64_t{part.first_tile + tile} * kMmaTile;
        TilePair of_head = at;
        of_head.head += head;
        QuerySums sums[2];
        if constexpr (kSide == Side::kKeys) {
          of_head.first_query = row;
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            sums[i] = query_sums(args, of_head, row + lane + i * kLanes, deltas);
          }
        }
        // A group waits for all pieces of the first tensor before it needs to know of the queries:
        // the last of those counts as there when that is, too.
        constexpr int kOfTensor = pieces_of_tensor(kDim), kFirst = first_tensor(kSums);
        constexpr int kLater = kSide == Side::kKeys ? kOfTensor - 1 : pieces_of_tile(kDim);
        const unsigned first_piece = t * pieces_of_tile(kDim);
#pragma unroll 1
        for (int i = 0; lane == 0 && i < pieces_of_tile(kDim); ++i) {
          const RowsToCopy from = rows_of<kOther>(maps, of_head, part.key_head,
                                                  i < kOfTensor ? kFirst : 1 - kFirst, row);
          Mbarrier* const full = state.pieces.wait_empty(first_piece + i);
          mbarrier_expect_bytes(full, kPieceBytes<kDim>);
          load_tile<piece_columns(kDim)>(tiles.piece(first_piece + i), from, full,
                                         i % kOfTensor * piece_columns(kDim));
          if (i != kLater) mbarrier_arrive(full);
        }
        if constexpr (kSide == Side::kKeys) {
          __syncwarp();  // the place of what is to be known is free, as those of the pieces are
          QueryTile& queries = state.others[t % state.kTileSlots];
          if (lane == 0) queries.at = of_head;
#pragma unroll
          for (int i = 0; i < 2; ++i) queries.sums[lane + i * kLanes] = sums[i];
          if (!part.list.is_full(tile, 0, kOwnerWarps)) {
#pragma unroll 1
            for (int i = lane; i < kMmaTile; i += kLanes) {
              queries.ranges[i] = key_ranges(args, at, row + i);
            }
          }
          __syncwarp();
          if (lane == 0) {
            mbarrier_arrive(&state.pieces.full[(first_piece + kLater) % state.kPieceSlots]);
          }
        }
      }
    }
    __syncwarp();
    if (lane == 0) state.parts.arrive_empty(n);
  }
}

#endif

}  // namespace serrate::backward_wgmma
