// The backward on tensor cores, for halves and float32 in tf32, without atomics. Scores of 64
// queries and 64 keys and their gradients are computed by queries, 16 a warp, and handed over in
// shared memory, rounded to the type of the tokens, to the warps that sum d_k and d_v, of 16 keys
// each. A block owns a tile of keys, and d_q too of a sequence that has no other: five products. Of
// a longer one a second kernel sums d_q, whose blocks own tiles of queries: seven products.
// (mma/backward_queries.cu)
#include <cmath>

#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma/gradients.cuh"
#include "kernels/attention/cuda/mma/head_rows.cuh"
#include "kernels/attention/cuda/ordered_sums.h"
#include "kernels/attention/cuda/tensor_cores.h"
#include "serrate/buffer.h"

namespace serrate {
namespace {

template <int kDim, class Half>
struct BackwardTiles {
  static constexpr std::int64_t kBytes = key_block_bytes(kDim, sizeof(Half));
  static constexpr int kQueries = queries_at_a_time(kDim, sizeof(Half));
  SwizzledRows<kDim, Half> q{dynamic_shared<Half>()}, d_out{q.data + kQueries * kDim},
      k{d_out.data + kQueries * kDim}, v{k.data + kMmaTile * kDim};
  SwizzledRows<kMmaTile, Half> weights{v.data + kMmaTile * kDim},
      d_scores{weights.data + kQueries * kMmaTile};
  QuerySums* sums = reinterpret_cast<QuerySums*>(d_scores.data + kQueries * kMmaTile);
};

// What a warp reads now and then, in shared memory.
struct WarpState {
  WarpTask task;
  TileClass seen;
  KeyRanges ranges[kWarpRows];
};

__device__ inline int columns_of(const WarpTask& task) {
  return static_cast<int>(std::min<std::int64_t>(task.at.num_keys - task.at.first_key, task.span));
}

// d_q of a task's queries, of sequences with one tile of keys, in columns that registers have room
// for. The block's queries have been read; their memory is the stage.
template <int kDim, class Half, class Part>
__device__ void sum_d_q(const AttentionBackwardView& call, const WarpTask& task, const Part& own,
                        const BackwardTiles<kDim, Half>& tiles) {
  constexpr int kColumns = kDim < 64 ? kDim : 64;
  if (task.count() == 0) return;
#pragma unroll 1
  for (int i = 0; i < own.kColumns; i += kColumns) {
    const int column = own.first_column + i;
    Fragment<kColumns / 8> d_q = {};
    add_staged_rows<kDim, kColumns>(tiles.d_scores, own.row, tiles.k, task.first_row,
                                    columns_of(task), column, d_q);
    write_d_q<kColumns>(call, task.at, task.count(), column, d_q, tiles.q.data);
  }
}

// One tile of keys after the other for each block; the queries go by in tiles, of all heads that
// share the keys, or in halves of tiles, which all warps score.
template <int kDim, class Half, Extras kExtras>
__global__ void __launch_bounds__(kWarps* warps_that_share(kDim) * kLanes,
                                  warps_that_share(kDim) == 1 ? 2 : 1)
    sum_keys(const __grid_constant__ AttentionBackwardView call, const WorkList work) {
  const AttentionView& args = call.forward;
  constexpr int kSharing = warps_that_share(kDim), kColumns = kDim / kSharing;
  __shared__ WarpState states[kWarps * kSharing];
  static_assert(sizeof(states) <= kStaticBytes);
  using Tiles = BackwardTiles<kDim, Half>;
  constexpr int kQueries = Tiles::kQueries, kParts = kMmaTile / kQueries;
  constexpr int kScored = kMmaTile / (kSharing * kParts);  // keys of a warp
  const Tiles tiles;
  const WarpPart<kDim, kSharing> own;
  const WarpPart<kDim, kSharing * kParts, kQueries> scored;
  const int lane = lane_index(), first_row = own.row,
            row_of_part = kParts == 1 ? own.row : own.row % kQueries;
  const std::int64_t group = heads_per_key_head(args);
  const TaskNumbers numbers{work.key_tiles, TaskNumbers::Rows::kKeys, kMmaTile, args.num_key_heads,
                            group};
  const TaskRange range = all_tasks(args, work, numbers);
  WarpState& state = states[own.warp];
  WarpTask& task = state.task;
  TilePair& at = task.at;
  for (std::int64_t index = range.begin + blockIdx.x; index < range.end; index += gridDim.x) {
    const WarpTask found = task_at(args, work, numbers, range, index);
    if (lane == 0) task = found;
    __syncwarp();
    const int row_in_span = task.row_in_span();
    const std::int64_t key_head = task.key_head, key = at.first_key + row_in_span;
    const std::int64_t keys = at.num_keys - key;
    if (own.copies(0)) {
      copy_rows<kDim>(args.k, at.in_keys + key, key_head, keys, tiles.k, first_row);
    }
    if (own.copies(1)) {
      copy_rows<kDim>(args.v, at.in_keys + key, key_head, keys, tiles.v, first_row);
    }
    Fragment<kColumns / 8> d_k = {}, d_v = {};
    const bool owns_d_q = at.num_keys <= kMmaTile;
    const GroupTiles queries{
        key_head * group, group,
        task.span < kMmaTile ? 1 : static_cast<int>(ceil_div(at.queries.count, kMmaTile))};
    for (std::int64_t step = 0; step < queries.steps(); ++step) {
      if (kParts > 1) __syncthreads();  // other warps have read the task
      queries.go_to(step, row_in_span, at);
      set_key_ranges(args, at, state.ranges);
      const TileClass seen = class_of_tile(
          args, at, state.ranges, {at.first_query, task.count(), static_cast<int>(at.first_key)});
      if (kParts > 1 && lane == 0) state.seen = seen;
      // The queries before have been read.
      if (__syncthreads_or(!seen.is_empty) == 0 && !owns_d_q) continue;
#pragma unroll 1
      for (int part = 0; part < kParts; ++part) {
        if (part > 0) __syncthreads();  // those of the part before have been read
        const bool is_own = kParts == 1 || first_row / kQueries == part;
        if (is_own && own.copies(0)) {
          copy_rows<kDim>(args.q, at.queries.in_q + at.first_query, at.head, task.count(), tiles.q,
                          row_of_part);
        }
        if (is_own && own.copies(1)) {
          copy_rows<kDim>(call.d_out, at.queries.in_out + at.first_query, at.head, task.count(),
                          tiles.d_out, row_of_part);
        }
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();
        if (is_own && !seen.is_empty && own.part == 0) {
          sum_queries<kDim>(args, at, task.count(), tiles.d_out, row_of_part,
                            tiles.sums + row_of_part);
        }
        if (kSharing > 1) __syncthreads();
        const WarpState& scorer =
            kParts == 1 ? state : states[(part * kQueries + scored.row) / kWarpRows];
        const TileClass seen_by_scorer = kParts == 1 ? seen : scorer.seen;
        const LaneTile tile{static_cast<int>(scorer.task.at.first_query) + lane / 4, scorer.ranges,
                            static_cast<int>(scorer.task.at.first_key), columns_of(scorer.task),
                            seen_by_scorer.is_full};
        for_each_gradient<kDim, kExtras, kScored, Half>(
            args, scorer.task, tile, seen_by_scorer.is_empty, tiles.sums + scored.row,
            {tiles.q, tiles.d_out, tiles.k, tiles.v, scored.row, scored.part * kScored},
            [&](int column, const auto& weights, const auto& d_scores) {
              constexpr int kBlocks = gradient_blocks(kDim, sizeof(Half));
              stage_rows<kMmaTile, kBlocks>(weights, tiles.weights, scored.row, column / 8);
              stage_rows<kMmaTile, kBlocks>(d_scores, tiles.d_scores, scored.row, column / 8);
            });
        __syncthreads();
        // Rows of the part that are queries of the warp's keys.
        const int first_of_part = part * kQueries;
        const int first = std::max<int>(task.first_row, first_of_part);
        const int end =
            task.first_row + static_cast<int>(std::min<std::int64_t>(
                                 at.queries.count - queries.first_query(step), task.span));
        const int count = std::min(end, first_of_part + kQueries) - first;
        add_transposed_rows<kDim, kColumns>(tiles.weights, tiles.d_out, first - first_of_part,
                                            count, row_in_span, own.first_column, d_v);
        add_transposed_rows<kDim, kColumns>(tiles.d_scores, tiles.q, first - first_of_part, count,
                                            row_in_span, own.first_column, d_k);
        if (!owns_d_q) continue;
        __syncthreads();
        sum_d_q<kDim>(call, scorer.task, scored, tiles);
      }
    }
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();  // the keys and values have been read
    const auto write = [&](float scale, Fragment<kColumns / 8>& sums_of_keys, Half* stage,
                           OutputHeads to) {
      to.device_data = static_cast<Half*>(to.device_data) + own.first_column;
      write_scaled<kColumns, Half>(scale * scale_of_sums(args), sums_of_keys, {stage},
                                   own.warp * kWarpRows, to, at.in_keys + key, key_head, keys);
    };
    write(args.scale, d_k, tiles.k.data, call.d_k);
    write(1, d_v, tiles.v.data, call.d_v);
    if (kSharing > 1) __syncthreads();  // the stage is rows of other warps
  }
}

template <int kDim, class Half>
void run(const AttentionBackwardView& call, const WorkList& work, const Stream& stream) {
  constexpr std::int64_t kBytes = BackwardTiles<kDim, Half>::kBytes;
  const auto launch_with = [&](auto kernel) {
    launch_warps(kernel, {kWarps * warps_that_share(kDim), kBytes, kBytes}, stream, call, work);
  };
  if (extras_of(call.forward) == Extras::kNone) {
    launch_with(sum_keys<kDim, Half, Extras::kNone>);
  } else {
    launch_with(sum_keys<kDim, Half, Extras::kAny>);
  }
}

std::int64_t floats_of_shared_queries(const AttentionView& args) {
  return batch_size_of(args) * args.num_shared_queries * args.num_heads * args.head_dim;
}

// Calls f(the call whose d_q has rows for every sequence's queries). Those of shared queries are
// workspace, in float32, of which d_q becomes the sum.
template <typename F>
void with_d_q_of_sequences(const AttentionBackwardView& call, const Stream& stream, F&& f) {
  const AttentionView& args = call.forward;
  if (args.num_shared_queries == 0) return f(call);
  Buffer<float> d_q(floats_of_shared_queries(args), stream);
  AttentionBackwardView of_sequences = call;
  of_sequences.d_q =
      DeviceHeads<float>{d_q.device_data(), args.num_heads * args.head_dim, args.head_dim};
  f(of_sequences);
  sum_shared_queries(d_q.device_data(), call, stream);
}

}  // namespace

bool backward_takes_tensor_cores(const AttentionBackwardView& call, const Stream& stream) {
  const AttentionView& args = call.forward;
  const auto takes = [&](const InputHeads& x) { return are_rows_of_tensor_cores(args, x); };
  return forward_takes_tensor_cores(args, stream) &&
         key_block_bytes(args.head_dim, size_of(args.q.type)) <= shared_bytes_of(stream) &&
         takes(call.d_out) && takes(call.d_q) && takes(call.d_k) && takes(call.d_v);
}

std::int64_t workspace_on_tensor_cores(const AttentionBackward& args, const Stream& stream) {
  const AttentionBackwardView call = view_of(args);
  const bool on_wgmma = longest_take_wgmma(call, stream);
  const bool has_own_list = args.forward.plan && !list_of(args.forward.plan, on_wgmma);
  const std::int64_t integers =
      has_own_list ? CudaAttentionPlan::size(batch_size_of(call.forward)) : 0;
  constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
  return std::max(floats_of_shared_queries(call.forward) * kFloat +
                      integers * static_cast<std::int64_t>(sizeof(std::int64_t)) +
                      (on_wgmma ? backward_of_longest_workspace(call) : 0),
                  floats_of_biases(call, std::ssize(args.d_bias)) * kFloat);
}

void backward_on_tensor_cores(const AttentionBackward& args, const Stream& stream) {
  const AttentionBackwardView call = view_of(args);
  with_d_q_of_sequences(call, stream, [&](const AttentionBackwardView& of_sequences) {
    const bool on_wgmma = longest_take_wgmma(call, stream);
    with_work_list(call.forward, args.forward.plan, on_wgmma, stream, [&](WorkList work) {
      work.longest_take_wgmma = on_wgmma;
      if (on_wgmma) backward_of_longest(call, work, stream);
      if (on_wgmma) sum_resident_by_wgmma(call, work, stream);
      if (!call.forward.in_tf32) sum_resident(of_sequences, work, stream);  // else none is
      sum_queries_of_many_keys(of_sequences, work, stream);
      with_rows(call.forward, [&](auto dim, auto half) {
        run<dim(), decltype(half)>(of_sequences, work, stream);
      });
    });
  });
  sum_gradients_of_biases(call, std::ssize(args.d_bias), stream);
}

}  // namespace serrate
