// The backward on tensor cores of sequences with more than one tile of keys, all of whose queries
// fit into shared memory, unless wgmma/backward_resident.cu takes them (other bits): a block of
// eight warps has a sequence in a head of keys, its queries with their d_out, and sums of d_q, and
// goes through the tiles of keys, and for each through those of queries. Every tensor is read or
// written once, and there are five products. Sums come in the same order as in mma/backward.cu,
// which takes the sequence where this does not pay, and have its bits.
#include <cmath>

#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma/gradients.cuh"
#include "kernels/attention/cuda/mma/head_rows.cuh"
#include "kernels/attention/cuda/tensor_cores.h"

namespace serrate {
namespace {

// Two warps share 16 rows: of scores each has half of the keys, of sums half of the columns.
constexpr int kNumWarps = 8, kScoreBlocks = kMmaTile / 16;

// A tile of queries has its part behind `queries`; with d_q, if the task owns it.
template <int kDim, class Half>
struct ResidentTiles {
  static constexpr int kTile = kMmaTile * kDim, kSums = kDim / 16;  // blocks of 8 columns of a warp
  static constexpr int kSumsOfTile = 4 * kMmaTile;                  // in halves
  int step;                                                         // of a tile of queries

  SwizzledRows<kDim, Half> k{dynamic_shared<Half>()}, v{k.data + kTile};
  SwizzledRows<kMmaTile, Half> weights{v.data + kTile},
      d_scores{weights.data + kMmaTile * kMmaTile};
  Half* queries = d_scores.data + kMmaTile * kMmaTile;

  __device__ SwizzledRows<kDim, Half> q(int tile) const { return {queries + tile * step}; }
  __device__ SwizzledRows<kDim, Half> d_out(int tile) const { return {q(tile).data + kTile}; }
  // A lane's part of d_q: block n is 32 n further.
  __device__ float4* d_q(int tile) const {
    const int warp = thread_index() / kLanes;
    return reinterpret_cast<float4*>(d_out(tile).data + kTile) + warp * kSums * kLanes +
           lane_index();
  }
  __device__ QuerySums* sums(int tile) const {
    return reinterpret_cast<QuerySums*>(q(tile + 1).data - kSumsOfTile);
  }
};

// What a warp reads now and then, in shared memory.
struct WarpState {
  WarpTask task;
  KeyRanges ranges[kWarpRows];
};

// d_q of a tile of queries += the gradients of its scores times keys; begins with 0.
enum class SumOf { kFirst, kNext };
template <int kDim, class Half>
__device__ void add_d_q(const ResidentTiles<kDim, Half>& tiles, int tile, int keys, SumOf before,
                        bool is_empty) {
  if (is_empty && before == SumOf::kNext) return;
  constexpr int kSums = ResidentTiles<kDim, Half>::kSums;
  const int warp = thread_index() / kLanes;
  const int first_row = warp % 4 * kWarpRows, first_column = warp / 4 * kDim / 2;
  float4* const stored = tiles.d_q(tile);
  Fragment<kSums> d_q = {};
  if (before == SumOf::kNext) {
#pragma unroll
    for (int n = 0; n < kSums; ++n) {
      const float4 x = stored[n * kLanes];
      d_q[n][0] = x.x, d_q[n][1] = x.y, d_q[n][2] = x.z, d_q[n][3] = x.w;
    }
  }
  if (!is_empty) {
    add_staged_rows<kDim, kDim / 2>(tiles.d_scores, first_row, tiles.k, 0, keys, first_column, d_q);
  }
#pragma unroll
  for (int n = 0; n < kSums; ++n) {
    stored[n * kLanes] = make_float4(d_q[n][0], d_q[n][1], d_q[n][2], d_q[n][3]);
  }
}

// One sequence in a head of keys after the other for each block.
template <int kDim, class Half, Extras kExtras>
__global__ void __launch_bounds__(kNumWarps* kLanes, 1)
    sum_whole(const __grid_constant__ AttentionBackwardView call, const WorkList work,
              const std::int64_t tiles_with_gradients) {
  constexpr int kColumns = kDim / 2, kSums = kDim / 16;
  const AttentionView& args = call.forward;
  __shared__ WarpState states[kNumWarps];
  static_assert(sizeof(states) <= kStaticBytes);
  const int lane = lane_index(), warp = thread_index() / kLanes;
  const int row = warp % 4 * kWarpRows, half = warp / 4, first_column = half * kColumns;
  const std::int64_t group = heads_per_key_head(args);
  const TaskNumbers numbers{work.resident, TaskNumbers::Rows::kQueries, kMmaTile,
                            args.num_key_heads, group};
  const TaskRange range{0, work.resident[batch_size_of(args)], 0};
  WarpState& state = states[warp];
  TilePair& at = state.task.at;
  for (std::int64_t index = blockIdx.x; index < range.end_of_long; index += gridDim.x) {
    const WarpTask found = task_at(args, work, numbers, range, index);
    if (lane == 0) state.task = found;
    __syncwarp();
    const std::int64_t key_head = state.task.key_head;
    const GroupTiles queries{key_head * group, group,
                             static_cast<int>(ceil_div(at.queries.count, kMmaTile))};
    const int key_tiles = static_cast<int>(ceil_div(at.num_keys, kMmaTile));
    const int steps = static_cast<int>(queries.steps());
    const bool owns_d_q = steps <= tiles_with_gradients;
    using Tiles = ResidentTiles<kDim, Half>;
    const Tiles tiles{(owns_d_q ? 4 : 2) * Tiles::kTile + Tiles::kSumsOfTile};
    // A warp copies 16 rows of one of the two.
    const auto copy_keys = [&](int tile) {
      const int key = tile * kMmaTile + row;
      const bool of_k = half == 0;
      copy_rows<kDim>(of_k ? args.k : args.v, at.in_keys + key, key_head, at.num_keys - key,
                      of_k ? tiles.k : tiles.v, row);
    };
    const auto copy_queries = [&](int step) {
      const int query = queries.first_query(step) + row;
      const bool of_q = half == 0;
      copy_rows<kDim>(of_q ? args.q : call.d_out,
                      (of_q ? at.queries.in_q : at.queries.in_out) + query, queries.head(step),
                      at.queries.count - query, of_q ? tiles.q(step) : tiles.d_out(step), row);
    };
    __syncthreads();  // the sequence before has been read and written
    copy_keys(0);
    copy_queries(0);
    copy_async_commit();
    for (int key_tile = 0; key_tile < key_tiles; ++key_tile) {
      const int first_key = key_tile * kMmaTile;
      const int columns =
          static_cast<int>(std::min<std::int64_t>(at.num_keys - first_key, kMmaTile));
      Fragment<kSums> d_k = {}, d_v = {};
      for (int step = 0; step < steps; ++step) {
        queries.go_to(step, row, at);
        set_key_ranges(args, at, state.ranges);
        const int count = state.task.count();
        const TileClass seen =
            class_of_tile(args, at, state.ranges, {at.first_query, count, first_key});
        if (key_tile == 0 && step + 1 < steps) {
          copy_queries(step + 1);
          copy_async_commit();
          copy_async_wait<1>();
        } else {
          copy_async_wait<0>();
        }
        // The rows are there; weights and gradients of scores of the step before have been read.
        const bool sees_any = __syncthreads_or(!seen.is_empty) != 0;
        QuerySums* const sums = tiles.sums(step) + row;
        if (key_tile == 0) {
          if (half == 0) sum_queries<kDim>(args, at, count, tiles.d_out(step), row, sums);
          __syncthreads();
        }
        const SumOf before = key_tile == 0 ? SumOf::kFirst : SumOf::kNext;
        if (!sees_any) {
          if (owns_d_q) add_d_q<kDim>(tiles, step, columns, before, true);
          continue;
        }
        Fragment<kScoreBlocks> weights = {}, d_scores = {};
        const int first_column_of_scores = half * kMmaTile / 2;
        const LaneTile tile{static_cast<int>(at.first_query) + lane / 4, state.ranges,
                            first_key + first_column_of_scores, columns - first_column_of_scores,
                            seen.is_full};
        if (!seen.is_empty && tile.num_columns > 0) {
          multiply_rows<kDim, kScoreBlocks>(tiles.q(step), row, tiles.k, first_column_of_scores,
                                            tile.num_columns, weights);
          multiply_rows<kDim, kScoreBlocks>(tiles.d_out(step), row, tiles.v, first_column_of_scores,
                                            tile.num_columns, d_scores);
          score_gradients<kExtras, kScoreBlocks>(args, at, tile, sums, weights, d_scores);
        }
        stage_rows<kMmaTile, kScoreBlocks>(weights, tiles.weights, row, first_column_of_scores / 8);
        stage_rows<kMmaTile, kScoreBlocks>(d_scores, tiles.d_scores, row,
                                           first_column_of_scores / 8);
        __syncthreads();
        const int rows = static_cast<int>(
            std::min<std::int64_t>(at.queries.count - queries.first_query(step), kMmaTile));
        add_transposed_rows<kDim, kColumns>(tiles.weights, tiles.d_out(step), 0, rows, row,
                                            first_column, d_v);
        add_transposed_rows<kDim, kColumns>(tiles.d_scores, tiles.q(step), 0, rows, row,
                                            first_column, d_k);
        if (owns_d_q) add_d_q<kDim>(tiles, step, columns, before, seen.is_empty);
      }
      __syncthreads();  // the keys and values and, the last time, the queries have been read
      if (key_tile + 1 < key_tiles) copy_keys(key_tile + 1);
      copy_async_commit();
      const SwizzledRows<kColumns, Half> stage{tiles.weights.data};
      const auto write = [&](float scale, Fragment<kSums>& of_keys, OutputHeads to) {
        to.device_data = static_cast<Half*>(to.device_data) + first_column;
        const int key = first_key + row;
        write_scaled<kColumns>(scale, of_keys, stage, warp * kWarpRows, to, at.in_keys + key,
                               key_head, at.num_keys - key);
      };
      write(args.scale * scale_of_sums(args), d_k, call.d_k);
      write(scale_of_sums(args), d_v, call.d_v);
    }
    for (int step = 0; step < steps && owns_d_q; ++step) {
      Fragment<kSums> d_q;
#pragma unroll
      for (int n = 0; n < kSums; ++n) {
        const float4 x = tiles.d_q(step)[n * kLanes];
        d_q[n][0] = x.x, d_q[n][1] = x.y, d_q[n][2] = x.z, d_q[n][3] = x.w;
      }
      queries.go_to(step, row, at);
      write_d_q<kColumns>(call, at, state.task.count(), first_column, d_q, tiles.weights.data);
    }
  }
}

template <int kDim, class Half>
void run(const AttentionBackwardView& call, const WorkList& work, const Stream& stream) {
  const auto room = [&](Resident what) {
    return resident_tiles(what, kDim, shared_bytes_of(stream));
  };
  const auto bytes = [&](Resident what) { return resident_bytes(what, kDim, room(what)); };
  const std::int64_t most =
      std::max(bytes(Resident::kQueries), bytes(Resident::kQueriesAndGradients));
  const auto launch_with = [&](auto kernel) {
    launch_warps(kernel,
                 {kNumWarps, most, most, batch_size_of(call.forward) * call.forward.num_key_heads},
                 stream, call, work, room(Resident::kQueriesAndGradients));
  };
  if (extras_of(call.forward) == Extras::kNone) {
    launch_with(sum_whole<kDim, Half, Extras::kNone>);
  } else {
    launch_with(sum_whole<kDim, Half, Extras::kAny>);
  }
}

}  // namespace

void sum_resident(const AttentionBackwardView& call, const WorkList& work, const Stream& stream) {
  with_halves<128>(call.forward,
                   [&](auto dim, auto half) { run<dim(), decltype(half)>(call, work, stream); });
}

}  // namespace serrate
