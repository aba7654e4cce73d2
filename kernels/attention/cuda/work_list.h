#pragma once

#include <cstdint>
#include <optional>

#include "kernels/attention/view.h"
#include "serrate/buffer.h"

namespace serrate {

/// Queries and keys of a tile on tensor cores.
inline constexpr int kMmaTile = 64;

/// A task is a whole sequence in a head of keys, unless there are too few of these to keep the
/// device busy, or it has more queries or keys than this. Those keys that a block has room for are
/// read once: with 227 / 163 / 99 KiB of shared memory, in the forward, 512 up to head_dim 64 (320
/// at 64 with 99 KiB) and 384 / 256 / 128 at 128, of halves; of float32 half as many or fewer.
inline constexpr std::int64_t kMostOfWhole = 8 * kMmaTile;

/// The same of Hopper's kernels, in both directions, and of the forward: at head_dim 256 a block
/// has room for 192 keys.
constexpr std::int64_t most_of_whole(std::int64_t head_dim) {
  return head_dim <= 128 ? kMostOfWhole : kMostOfWhole / 2;
}

/// The most queries and keys of a sequence that blocks of four warps take, 64 queries at a time in
/// the forward: longer ones are for blocks of 128 queries, where registers and shared memory allow.
constexpr int short_size(std::int64_t head_dim) {
  return head_dim <= 128 ? 2 * kMmaTile : kMmaTile;
}
/// Warps of the forward's blocks for longer sequences, of 16 queries each.
constexpr int warps_for_long(std::int64_t head_dim) {
  return head_dim <= 128 ? 8 : 4;
}

/// Rows that a block of Hopper's backward owns.
inline constexpr int kLongestRows = 2 * kMmaTile;

/// Queries, of all heads that share keys, that a block of Hopper's backward has in registers and
/// shared memory: of a sequence of more keys than a tile, and of up to most_of_whole, it takes them
/// all. At head_dim 64 and 128 only if they are more than half of this: up to that a block of
/// mma/backward_resident.cu has them with d_q.
constexpr std::int64_t resident_rows_of_wgmma(std::int64_t head_dim) {
  return (std::int64_t{32} << 10) / head_dim;
}
/// How many blocks of a cluster may share a sequence, each with up to so many queries.
constexpr std::int64_t resident_blocks_of_wgmma(std::int64_t head_dim) {
  return head_dim <= 64 ? 1 : 2;
}

/// Warps of a block of the backward that share 16 queries and 16 keys, as registers allow: of
/// scores each has a part of the keys, of sums a part of the columns.
constexpr int warps_that_share(std::int64_t head_dim) {
  return head_dim <= 128 ? 1 : 2;
}

/// Queries of a block that sums d_q alone.
constexpr int rows_for_d_q(std::int64_t head_dim) {
  return head_dim <= 64 ? 2 * kMmaTile : kMmaTile;
}

/// What a block of the backward that has all queries of a sequence has of them in shared memory,
/// in bytes a value: themselves and d_out, and their gradients in float32 where there is room.
enum class Resident { kQueries = 4, kQueriesAndGradients = 8 };

/// Besides, two floats a query; and a tile of keys and of values, weights and gradients of scores
/// of two tiles, all halves.
constexpr std::int64_t resident_bytes(Resident what, std::int64_t head_dim, std::int64_t tiles) {
  return kMmaTile *
         (4 * (head_dim + kMmaTile) + tiles * (static_cast<std::int64_t>(what) * head_dim + 8));
}
/// Queries that a block that owns a tile of keys has at a time, of values of so many bytes: a tile,
/// or half of one.
constexpr int queries_at_a_time(std::int64_t head_dim, std::int64_t value_bytes) {
  return head_dim * value_bytes <= 512 ? kMmaTile : kMmaTile / 2;
}
/// Its shared memory: of halves it is resident_bytes of one tile.
constexpr std::int64_t key_block_bytes(std::int64_t head_dim, std::int64_t value_bytes) {
  return 2 * value_bytes * kMmaTile * head_dim +
         queries_at_a_time(head_dim, value_bytes) * (2 * value_bytes * (head_dim + kMmaTile) + 8);
}
/// How many tiles of queries there may be, of all heads that share keys.
constexpr std::int64_t resident_tiles(Resident what, std::int64_t head_dim,
                                      std::int64_t shared_bytes) {
  const std::int64_t others = resident_bytes(what, head_dim, 0);
  return shared_bytes < others
             ? 0
             : (shared_bytes - others) / (resident_bytes(what, head_dim, 1) - others);
}

/// The order in which kernels on tensor cores take the sequences of a batch, the longest first, in
/// device memory. Those with at most 16 or 32 queries and keys are last: 4 or 2 of their pairs of
/// sequence and head share a tile.
struct WorkList {
  /// How many sequences are longer than short_size, up to that, up to 32, up to 16; and of the
  /// first ones, how many are longer than most_of_whole.
  const std::int64_t* counts;
  const std::int64_t* order;  // [batch_size]
  /// [batch_size + 1], by place in the order: tasks of the kernels, before each and all. Sequences
  /// of up to 32 have none here, and those that decode none of `forward`.
  const std::int64_t *forward, *resident, *key_tiles, *query_blocks;
  /// Likewise of what decodes (decoding.h): tasks, and rows of partials of what might be cut. Not
  /// written where no sequence of the call may decode.
  const std::int64_t *decoding, *partial_rows;
  /// Likewise of those longer than most_of_whole: tasks of kLongestRows queries, and of keys, of
  /// the backward by wgmma.
  const std::int64_t *longest_queries, *longest_keys;
  /// Likewise of the sequences that a block of wgmma/backward_resident.cu has, and two of a
  /// cluster; others leave them out.
  const std::int64_t *resident_wgmma, *paired_wgmma;
  bool longest_take_wgmma = false;  // and other kernels of the backward leave them out
};

/// What CUDA's kernels know of a batch beforehand; made on the device from lengths alone.
struct CudaAttentionPlan {
  static constexpr std::int64_t kCounts = 5, kNumberings = 10;
  static std::int64_t size(std::int64_t batch_size) {
    return kCounts + batch_size + kNumberings * (batch_size + 1);
  }

  Buffer<std::int64_t> values;
  std::int64_t num_partials;
  bool backward_takes_wgmma;
  WorkList list(std::int64_t batch_size) const {
    const std::int64_t *counts = values.device_data(), *order = counts + kCounts;
    const std::int64_t *tasks = order + batch_size, step = batch_size + 1;
    return {counts,
            order,
            tasks,
            tasks + step,
            tasks + 2 * step,
            tasks + 3 * step,
            tasks + 4 * step,
            tasks + 5 * step,
            tasks + 6 * step,
            tasks + 7 * step,
            tasks + 8 * step,
            tasks + 9 * step};
  }
};

/// backward_takes_wgmma: whether there are tasks of resident_wgmma and paired_wgmma.
CudaAttentionPlan list_work(const AttentionView& args, bool backward_takes_wgmma,
                            const Stream& stream);

/// The list of a call's plan: null if there is none or it was made for the other choice of
/// backward.
inline const CudaAttentionPlan* list_of(const AttentionPlan* plan,
                                        std::optional<bool> backward_takes_wgmma) {
  const CudaAttentionPlan* const list = plan ? plan->on_cuda() : nullptr;
  return list && backward_takes_wgmma.value_or(list->backward_takes_wgmma) ==
                     list->backward_takes_wgmma
             ? list
             : nullptr;
}

/// Calls f(WorkList), the one of the call's plan or, if there is none or it was made for the other
/// choice of backward, a list of its own.
template <typename F>
void with_work_list(const AttentionView& args, const AttentionPlan* plan,
                    std::optional<bool> backward_takes_wgmma, const Stream& stream, F&& f) {
  const std::int64_t batch_size = batch_size_of(args);
  if (const CudaAttentionPlan* const planned = list_of(plan, backward_takes_wgmma)) {
    return f(planned->list(batch_size));
  }
  const CudaAttentionPlan own = list_work(args, backward_takes_wgmma.value_or(false), stream);
  f(own.list(batch_size));
}

}  // namespace serrate
