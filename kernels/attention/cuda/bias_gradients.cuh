#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/backward_tile.cuh"

// What biases and tables get of the gradients of scores, in a fixed order and without atomics.
namespace serrate {

// d_bias += d_scores. The thread that adds to a value is always the same one, as values and pairs
// of a tile go together.
template <class Shape>
__device__ __forceinline__ void add_to_bias(const AttentionBackwardView& args, const TilePair& at,
                                            const Tiles<Shape>& tiles) {
  const BiasView& bias = args.forward.bias;
  const std::int64_t queries =
      std::min<std::int64_t>(at.queries.count - at.first_query, Shape::kTile);
  const std::int64_t keys = std::min<std::int64_t>(at.num_keys - at.first_key, Shape::kTile);
  const auto place = [&](std::int64_t i, std::int64_t j) {
    return bias_place(bias, at, at.first_query + i, at.first_key + j);
  };
  const auto d_score = [&](std::int64_t i, std::int64_t j) {
    return tiles.d_scores[i * Shape::kScoresStride + j];
  };
  const int thread = thread_index();
  if (bias.query_stride == 0) {
    float sum = 0;
    if (thread >= keys) return;
    for (std::int64_t i = 0; i < queries; ++i) sum += d_score(i, thread);
    args.d_bias[place(0, thread)] += sum;
  } else if (bias.key_stride == 0) {
    float sum = 0;
    if (thread >= queries) return;
    for (std::int64_t j = 0; j < keys; ++j) sum += d_score(thread, j);
    args.d_bias[place(thread, 0)] += sum;
  } else {
    for (std::int64_t pair = thread; pair < Shape::kTile * Shape::kTile;
         pair += kThreadsX * kThreadsY) {
      const std::int64_t i = pair / Shape::kTile, j = pair % Shape::kTile;
      if (i < queries && j < keys) args.d_bias[place(i, j)] += d_score(i, j);
    }
  }
}

// Adds d_scores, in shared memory, to the entries of a table that `entry_of(query, key)` says. One
// warp takes row after row, a lane a key; of equal entries the first lane adds up all of the row.
template <class Shape, typename F>
__device__ __forceinline__ void add_to_table(const TilePair& at, unsigned visible,
                                             const Tiles<Shape>& tiles, float* d_table,
                                             F&& entry_of) {
  static_assert(Shape::kTile <= kLanes);
  __syncthreads();  // the entries before have been read
  for_each_row<Shape>([&](int row, int r) {
    for (int m = 0; m < Shape::kColumns; ++m) {
      const int column = first_column<Shape>() + m;
      tiles.entries[row * Shape::kScoresStride + column] =
          has_pair<Shape>(visible, r, m)
              ? static_cast<int>(entry_of(at.first_query + row, at.first_key + column))
              : -1;
    }
  });
  __syncthreads();
  const int lane = thread_index();
  if (lane >= kLanes) return;
  const auto rows = std::min<std::int64_t>(at.queries.count - at.first_query, Shape::kTile);
  for (int row = 0; row < rows; ++row) {
    const int first = row * Shape::kScoresStride;
    const int entry = lane < Shape::kTile ? tiles.entries[first + lane] : -1;
    unsigned equal = __match_any_sync(~0u, entry);
    if (entry >= 0 && lane == __ffs(static_cast<int>(equal)) - 1) {
      float sum = 0;
      for (; equal != 0; equal &= equal - 1) {
        sum += tiles.d_scores[first + __ffs(static_cast<int>(equal)) - 1];
      }
      d_table[entry] += sum;
    }
    __syncwarp();  // of the next row, the entry may be another lane's
  }
}

/// What a pair of tiles adds to the gradients of biases and tables; d_scores are in shared memory.
template <class Shape>
__device__ __forceinline__ void add_to_biases(const Call& call, const TilePair& at,
                                              unsigned visible, const Tiles<Shape>& tiles) {
  const AttentionView& args = call.args.forward;
  if (!call.args.d_bias && !call.d_position && !call.d_time) return;
  __syncthreads();  // all of d_scores is there
  if (call.args.d_bias) add_to_bias<Shape>(call.args, at, tiles);
  const std::int64_t share = at.sequence * args.num_heads + at.head;
  if (call.d_position) {
    add_to_table<Shape>(at, visible, tiles,
                        call.d_position + share * num_entries(args.position_table),
                        [&](std::int64_t i, std::int64_t j) { return position_entry(args, i, j); });
  }
  if (call.d_time) {
    add_to_table<Shape>(at, visible, tiles, call.d_time + share * num_entries(args.time_table),
                        [&](std::int64_t i, std::int64_t j) { return time_entry(args, at, i, j); });
  }
}

}  // namespace serrate
