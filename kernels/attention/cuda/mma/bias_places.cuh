#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/tile_list.cuh"

// Where gradients of biases and tables on tensor cores come from: which tiles of which sequences
// and heads are one block's, and in what order. (mma/bias_gradients.cu)
namespace serrate {

/// What a kernel sums.
enum class Summed { kBias, kTables };

/// A block takes one of so many shares of the tiles of a run of sequences, in one head or in all.
struct BiasTasks {
  std::int64_t runs, shares;
  bool all_heads, all_queries, all_keys;  // what a sum goes over besides

  __host__ __device__ std::int64_t heads(const AttentionView& args) const {
    return all_heads ? 1 : args.num_heads;
  }
  __host__ __device__ std::int64_t size(const AttentionView& args) const {
    return runs * shares * heads(args);
  }
};

/// The most queries and keys of any of the sequences.
struct Longest {
  std::int64_t queries = 0, keys = 0;
};
__device__ inline Longest longest_of(const AttentionView& args, std::int64_t begin,
                                     std::int64_t end) {
  Longest longest;
  for (std::int64_t s = begin + lane_index(); s < end; s += kLanes) {
    longest.queries = std::max(longest.queries, queries_of(args, s).count);
    longest.keys = std::max(longest.keys, num_keys_of(args, s));
  }
  for (int lanes = 1; lanes < kLanes; lanes *= 2) {
    longest.queries = std::max(longest.queries, __shfl_xor_sync(~0u, longest.queries, lanes));
    longest.keys = std::max(longest.keys, __shfl_xor_sync(~0u, longest.keys, lanes));
  }
  return longest;
}

/// What a block does next, in shared memory: of some sequences of a run, in a head, every
/// tasks.shares-th place from first_place on. A place is a tile, or a row or a column of them.
struct BiasTask {
  std::int64_t index, run, end_of_run, begin, end, head, first_place, query_tiles, key_tiles;

  __device__ std::int64_t query_tile(std::int64_t place) const { return place / key_tiles; }
  __device__ std::int64_t key_tile(std::int64_t place) const { return place % key_tiles; }
};

__device__ inline BiasTask task_at(const AttentionView& args, const BiasTasks& tasks,
                                   std::int64_t index) {
  const std::int64_t heads = tasks.heads(args), batch_size = batch_size_of(args);
  BiasTask task{};
  task.index = index;
  task.run = index / heads / tasks.shares, task.head = index % heads;
  task.first_place = index / heads % tasks.shares;
  task.begin = task.end = task.run * batch_size / tasks.runs;
  task.end_of_run = (task.run + 1) * batch_size / tasks.runs;
  return task;
}
/// Places of a bias go through all sequences of the run; tables take one sequence after the other.
template <Summed kSummed>
__device__ BiasTask next_of(const AttentionView& args, const BiasTasks& tasks, BiasTask task) {
  task.begin = task.end;
  task.end = kSummed == Summed::kTables ? task.begin + 1 : task.end_of_run;
  const Longest longest = longest_of(args, task.begin, task.end);
  task.query_tiles = tasks.all_queries ? 1 : ceil_div(longest.queries, kMmaTile);
  task.key_tiles = tasks.all_keys ? 1 : ceil_div(longest.keys, kMmaTile);
  return task;
}

/// A place in one sequence: its first tile in the first head.
__device__ inline TilePair first_at(const AttentionView& args, const BiasTask& task,
                                    std::int64_t place, std::int64_t sequence) {
  TilePair at = pair_of(args, sequence, task.head);
  at.first_query = task.query_tile(place) * kMmaTile;
  at.first_key = task.key_tile(place) * kMmaTile;
  return at;
}

/// Calls f(sequence) for those of a task that have the place.
template <typename F>
__device__ void for_each_at(const AttentionView& args, const BiasTask& task, std::int64_t place,
                            F&& f) {
  const std::int64_t query = task.query_tile(place) * kMmaTile;
  const std::int64_t key = task.key_tile(place) * kMmaTile;
  for (std::int64_t first = task.begin; first < task.end; first += kLanes) {
    const std::int64_t s = first + lane_index();
    const bool has_place =
        s < task.end && query < queries_of(args, s).count && key < num_keys_of(args, s);
    for (unsigned some = __ballot_sync(~0u, has_place); some != 0; some &= some - 1) {
      f(first + __ffs(static_cast<int>(some)) - 1);
    }
  }
}

/// Its other tiles, by number: how many queries and keys there are, in tiles, and heads.
struct PlaceItems {
  std::int64_t queries, keys, all;

  __device__ PlaceItems(const AttentionView& args, const BiasTasks& tasks, const TilePair& at)
      : queries(tasks.all_queries ? ceil_div(at.queries.count, kMmaTile) : 1),
        keys(tasks.all_keys ? ceil_div(at.num_keys, kMmaTile) : 1),
        all(queries * keys * (tasks.all_heads ? args.num_heads : 1)) {}
};
__device__ inline void go_to_item(const AttentionView& args, const BiasTasks& tasks,
                                  const BiasTask& task, std::int64_t place, std::int64_t item,
                                  TilePair& at) {
  const PlaceItems items(args, tasks, at);
  at.head = task.head + item / items.keys / items.queries;
  at.first_query = (task.query_tile(place) + item / items.keys % items.queries) * kMmaTile +
                   thread_index() / kLanes % kWarps * kWarpRows;
  at.first_key = (task.key_tile(place) + item % items.keys) * kMmaTile;
}

}  // namespace serrate
