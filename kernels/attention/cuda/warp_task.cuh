#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/scores.cuh"
#include "kernels/attention/cuda/work_list.h"
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/search.cuh"

// The work of kernels on tensor cores, from the list of a batch: which part of which task a warp
// has.
namespace serrate {

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
