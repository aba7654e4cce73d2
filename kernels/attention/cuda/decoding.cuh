#pragma once

#include <cstdint>

#include "kernels/attention/cuda/decoding.h"
#include "kernels/attention/cuda/mma/scores.cuh"
#include "kernels/attention/cuda/scores.cuh"
#include "kernels/cuda/search.cuh"

namespace serrate {

/// Heads of a sequence's tasks: of keys, or of queries where biases, dropout or masks of pairs keep
/// these apart.
inline std::int64_t decoding_heads(const AttentionView& args) {
  return extras_of(args) == Extras::kNone ? args.num_key_heads : args.num_heads;
}

struct DecodingCall {
  std::int64_t heads;
  float* partials;  // unnormalised rows [partial_rows, head_dim]; of each, maximum and sum
  std::int64_t partial_rows;

  __device__ float* row(const AttentionView& args, std::int64_t index) const {
    return partials + index * args.head_dim;
  }
  __device__ float* max_and_sum(const AttentionView& args, std::int64_t index) const {
    return partials + partial_rows * args.head_dim + 2 * index;
  }
};

/// A chunk of a sequence's keys, or all of its chunks, and up to kTaskRows rows of the queries of
/// one of `heads`: row r is query r / row_heads of head at.head + r % row_heads.
struct DecodingTask {
  TilePair at;
  std::int64_t key_head, row_heads, rows, first_row, end_row;
  bool is_wide;  // has more than 16 rows, or would if heads were not kept apart
  std::int64_t chunk_keys, num_chunks, first_chunk, end_chunk;
  std::int64_t first_partial;  // of its row 0 in chunk 0

  __device__ bool is_cut() const { return end_chunk - first_chunk < num_chunks; }
  __device__ std::int64_t query_of(std::int64_t row) const { return row / row_heads; }
  __device__ std::int64_t head_of(std::int64_t row) const { return at.head + row % row_heads; }
  __device__ std::int64_t partial_of(std::int64_t chunk, std::int64_t row) const {
    return first_partial + chunk * rows + row;
  }
  __device__ std::int64_t end_of_keys(std::int64_t chunk) const {
    return std::min((chunk + 1) * chunk_keys, at.num_keys);
  }
};

__device__ inline std::int64_t num_decoding_tasks(const AttentionView& args, const WorkList& work) {
  return work.decoding[batch_size_of(args)];
}

__device__ inline DecodingTask decoding_task_at(const AttentionView& args, const WorkList& work,
                                                const DecodingCall& call, std::int64_t task) {
  const std::int64_t place = last_at_most(work.counts[0] + work.counts[1], task,
                                          [&](std::int64_t p) { return work.decoding[p]; });
  const std::int64_t first = work.decoding[place];
  const DecodingSplit split = decoding_split(args, work.order[place]);
  const std::int64_t blocks = row_blocks(args, split, call.heads);
  if (blocks == 0) return {};  // it is a tile like any other in this call
  const std::int64_t tasks = (work.decoding[place + 1] - first) / call.heads;
  const std::int64_t parts = tasks / blocks;  // of its keys
  const std::int64_t head = (task - first) / tasks, block = (task - first) % tasks / parts;
  const std::int64_t part = (task - first) % parts;
  const std::int64_t heads_apart = args.num_heads / call.heads;
  const std::int64_t rows = split.rows / heads_per_key_head(args) * heads_apart;
  DecodingTask result{.at = pair_of(args, work.order[place], head * heads_apart),
                      .key_head = head * heads_apart / heads_per_key_head(args),
                      .row_heads = heads_apart,
                      .rows = rows,
                      .first_row = block * kTaskRows,
                      .end_row = std::min((block + 1) * kTaskRows, rows),
                      .is_wide = split.rows > kWarpRows,
                      .chunk_keys = split.chunk_keys,
                      .num_chunks = split.num_chunks,
                      .first_chunk = part,
                      .end_chunk = parts == 1 ? split.num_chunks : part + 1,
                      .first_partial = 0};
  result.first_partial = work.partial_rows[place] + head * split.num_chunks * result.rows;
  return result;
}

// ---- what a row's chunks leave ----------------------------------------------------------------

/// Softmax over some keys: the maximum of the scores, in units of log 2, and the sum of
/// 2^(score - maximum). A row of SiLU has maximum 0.
struct RowSum {
  float max = -INFINITY, sum = 0;
};
struct FoldFactors {
  float total, next;
};

/// Adds the keys that come next; what was summed of both is to be multiplied by the factors. The
/// products are rounded as they are written: nvcc must not fuse them in one kernel and not in
/// another.
__device__ inline FoldFactors fold(RowSum& total, const RowSum& next) {
  const float max = fmaxf(total.max, next.max);
  const float shift = max == -INFINITY ? 0 : max;  // no key has been seen
  const FoldFactors factors{exp2f(total.max - shift), exp2f(next.max - shift)};
  total = {max, fmaf(factors.next, next.sum, __fmul_rn(factors.total, total.sum))};
  return factors;
}
__device__ inline float fold(const FoldFactors& factors, float total, float next) {
  return fmaf(factors.next, next, __fmul_rn(factors.total, total));
}

/// A row as eight threads of a warp have it: thread x has the columns x, x + 8, ...
template <int kColumns>
struct PartialRow {
  float out[kColumns] = {};
  RowSum sum = {};

  __device__ void add(const PartialRow& next) {
    const FoldFactors factors = fold(sum, next.sum);
#pragma unroll
    for (int m = 0; m < kColumns; ++m) out[m] = fold(factors, out[m], next.out[m]);
  }
};

/// Calls f(column, index) for those of the calling thread that are below head_dim.
template <int kColumns, typename F>
__device__ void for_each_column(const AttentionView& args, F&& f) {
#pragma unroll
  for (int m = 0; m < kColumns; ++m) {
    const int column = thread_index() % kThreadsX + kThreadsX * m;
    if (column < args.head_dim) f(column, m);
  }
}

template <int kColumns>
__device__ void write_partial(const AttentionView& args, const DecodingCall& call,
                              std::int64_t index, const PartialRow<kColumns>& row) {
  float *const to = call.row(args, index), *const sums = call.max_and_sum(args, index);
  for_each_column<kColumns>(args, [&](int column, int m) { to[column] = row.out[m]; });
  const int x = thread_index() % kThreadsX;
  if (x < 2) sums[x] = x == 0 ? row.sum.max : row.sum.sum;  // at once
}

__device__ inline float finished(const AttentionView& args, const RowSum& sum, float x) {
  if (!is_softmax(args)) return x;
  return sum.sum == 0 ? 0 : x / sum.sum;
}
__device__ inline void write_lse(const AttentionView& args, const DecodingTask& task,
                                 std::int64_t row, const RowSum& sum) {
  if (!is_softmax(args) || args.lse.empty()) return;
  const std::int64_t row_of_head =
      task.head_of(row) * (static_cast<std::int64_t>(args.lse.size()) / args.num_heads);
  args.lse[row_of_head + task.at.queries.in_out + task.query_of(row)] =
      sum.sum == 0 ? -INFINITY : (sum.max + log2f(sum.sum)) / kLog2e;
}

/// The row of a task that is not cut.
template <int kColumns>
__device__ void write_finished(const AttentionView& args, const DecodingTask& task,
                               std::int64_t row, const PartialRow<kColumns>& x) {
  for_each_column<kColumns>(args, [&](int column, int m) {
    store(finished(args, x.sum, x.out[m]), args.out, task.at.queries.in_out + task.query_of(row),
          task.head_of(row), column);
  });
  if (thread_index() % kThreadsX == 0) write_lse(args, task, row, x.sum);
}

}  // namespace serrate
