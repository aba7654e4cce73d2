// d_q on tensor cores of sequences with more than one tile of keys, where no block has all of their
// queries with d_q: a warp takes 16 queries, and its block of eight warps (four at head_dim 128)
// goes through the tiles of keys as the forward does. At head_dim 256 two warps share 16 queries:
// each has half of the keys of a tile and hands over its gradients of scores, and half of the
// columns of d_q. One sequence in a head of keys after the other, or one block of queries, where
// there are few sequences or they are long.
#include <cmath>

#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma/gradients.cuh"
#include "kernels/attention/cuda/mma/head_rows.cuh"
#include "kernels/attention/cuda/mma/key_slots.cuh"
#include "kernels/attention/cuda/tensor_cores.h"

namespace serrate {
namespace {

// Dynamic shared memory: queries, d_out, gradients of scores if warps share rows, sums of queries,
// slots of keys and values.
constexpr int staged_size(int head_dim) {
  return warps_that_share(head_dim) == 1 ? 0 : kMmaTile * kMmaTile;
}
template <int kDim, class Half>
constexpr std::int64_t bytes_of_queries() {
  constexpr std::int64_t kSize = sizeof(Half), kSums = sizeof(QuerySums);
  return rows_for_d_q(kDim) * (2 * kSize * kDim + kSums) + kSize * staged_size(kDim);
}
constexpr int warps_for_d_q(int head_dim) {
  return rows_for_d_q(head_dim) / kWarpRows * warps_that_share(head_dim);
}
// At head_dim 128 with two, of halves, a multiprocessor of an H100 has room for another block.
constexpr int most_slots_for(int head_dim) {
  return head_dim <= 64 ? kMostOfWhole / kMmaTile : 2;
}

template <int kDim, class Half, Extras kExtras>
__global__ void __launch_bounds__(warps_for_d_q(kDim) * kLanes, kDim == 128 ? 2 : 1)
    sum_queries_of_tasks(const __grid_constant__ AttentionBackwardView call, const WorkList work,
                         const int num_slots) {
  const AttentionView& args = call.forward;
  constexpr int kRows = rows_for_d_q(kDim), kNumWarps = warps_for_d_q(kDim);
  constexpr int kSharing = warps_that_share(kDim), kColumns = kDim / kSharing;
  constexpr int kBlocks = gradient_blocks(kDim, sizeof(Half));
  __shared__ QueryBlock<kNumWarps> state;
  static_assert(sizeof(state) <= kStaticBytes);
  const int lane = lane_index();
  const WarpPart<kDim, kSharing> own;
  const int first_row = own.row;
  using Rows = SwizzledRows<kDim, Half>;
  const Rows q{dynamic_shared<Half>()}, d_out{q.data + kRows * kDim};
  const SwizzledRows<kMmaTile, Half> staged{d_out.data + kRows * kDim};
  QuerySums* const sums = reinterpret_cast<QuerySums*>(staged.data + staged_size(kDim)) + first_row;
  using Slots = KeySlots<kDim, kNumWarps, Half>;
  constexpr int kKeys = Slots::kRows, kKeysOfWarp = kKeys / kSharing;
  Slots slots(q.data + bytes_of_queries<kDim, Half>() / sizeof(Half), num_slots);
  KeyRanges* const ranges = state.ranges + own.warp * kWarpRows;
  const TaskNumbers numbers{work.query_blocks, TaskNumbers::Rows::kQueries, kRows, args.num_heads,
                            1};
  const std::int64_t num_tasks = work.query_blocks[batch_size_of(args)];
  if (thread_index() == 0) state.range = {0, num_tasks, num_tasks};
  __syncthreads();
  WarpTask& task = state.tasks[own.warp];
  TilePair& at = task.at;
  for (std::int64_t index = first_task_of_mma(work, work.query_blocks) + blockIdx.x;
       index < num_tasks; index += gridDim.x) {
    state.take(args, work, numbers, index);
    slots.forget();
    for (int items = task.items; items > 0; --items) {
      const int count = task.count();
      if (own.copies(0)) {
        copy_rows<kDim>(args.q, at.queries.in_q + at.first_query, at.head, count, q, first_row);
      }
      if (own.copies(1)) {
        copy_rows<kDim>(call.d_out, at.queries.in_out + at.first_query, at.head, count, d_out,
                        first_row);
      }
      set_key_ranges(args, at, ranges);
      Fragment<kColumns / 8> d_q = {};
      bool has_sums = false;
      slots.for_each_tile(
          args, task, ranges, state.list, [&](int first_key, TileClass seen, Rows k, Rows v) {
            if (!has_sums && own.part == 0) {
              sum_queries<kDim>(args, at, count, d_out, first_row, sums);
            }
            if (!has_sums) own.sync();
            has_sums = true;
            if (seen.is_empty) return;
            const int columns =
                static_cast<int>(std::min<std::int64_t>(at.num_keys - first_key, kKeys));
            const LaneTile tile{static_cast<int>(at.first_query) + lane / 4, ranges, first_key,
                                columns, seen.is_full};
            for_each_gradient<kDim, kExtras, kKeysOfWarp, Half>(
                args, task, tile, false, sums, {q, d_out, k, v, first_row, own.part * kKeysOfWarp},
                [&](int column, const auto&, const auto& d_scores) {
                  if constexpr (kSharing == 1) {
                    add_weighted_rows<kDim, kDim, kBlocks>(d_scores, k, column, columns - column, 0,
                                                           d_q);
                  } else {
                    stage_rows<kMmaTile, kBlocks>(d_scores, staged, first_row, column / 8);
                  }
                });
            if constexpr (kSharing > 1) {
              own.sync();
              add_staged_rows<kDim, kColumns>(staged, first_row, k, 0, columns, own.first_column,
                                              d_q);
            }
          });
      if (kSharing > 1) __syncthreads();  // the stage is rows of other warps
      write_d_q<kColumns>(call, at, count, own.first_column, d_q, q.data);
      if (kSharing > 1) __syncthreads();
      go_to_next_item(task, kRows);
    }
  }
}

template <int kDim, class Half>
void run(const AttentionBackwardView& call, const WorkList& work, const Stream& stream) {
  constexpr int kNumWarps = warps_for_d_q(kDim);
  constexpr std::int64_t kRowBytes = kDim * sizeof(Half), kQueries = bytes_of_queries<kDim, Half>();
  const int slots =
      std::min(most_slots(shared_bytes_of(stream) - kQueries, kRowBytes), most_slots_for(kDim));
  const std::int64_t bytes = kQueries + slots * slot_bytes(kRowBytes);
  const auto launch_with = [&](auto kernel) {
    launch_warps(kernel, {kNumWarps, bytes, bytes}, stream, call, work, slots);
  };
  if (extras_of(call.forward) == Extras::kNone) {
    launch_with(sum_queries_of_tasks<kDim, Half, Extras::kNone>);
  } else {
    launch_with(sum_queries_of_tasks<kDim, Half, Extras::kAny>);
  }
}

}  // namespace

void sum_queries_of_many_keys(const AttentionBackwardView& call, const WorkList& work,
                              const Stream& stream) {
  with_rows(call.forward,
            [&](auto dim, auto half) { run<dim(), decltype(half)>(call, work, stream); });
}

}  // namespace serrate
