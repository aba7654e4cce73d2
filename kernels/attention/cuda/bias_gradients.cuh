#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/backward_tile.cuh"
#include "kernels/attention/cuda/bias_sums.cuh"

// What biases and tables get of the gradients of scores, in a fixed order and without atomics.
namespace serrate {

// Adds d_scores, in shared memory, to the entries of a table that `entry_of(query, key)` says. One
// warp takes row after row, a lane a key.
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
    const int pair = row * Shape::kScoresStride + lane;
    const bool is_pair = lane < Shape::kTile;
    add_by_entry(d_table, is_pair ? tiles.entries[pair] : -1, is_pair ? tiles.d_scores[pair] : 0);
  }
}

/// What a pair of tiles adds to the gradients of biases and tables; d_scores are in shared memory.
template <class Shape>
__device__ __forceinline__ void add_to_biases(const Call& call, const TilePair& at,
                                              unsigned visible, const Tiles<Shape>& tiles) {
  const AttentionView& args = call.args.forward;
  if (!call.args.d_bias && !call.d_position && !call.d_time) return;
  __syncthreads();  // all of d_scores is there
  if (call.args.d_bias) {
    add_to_bias<Shape::kTile, Shape::kScoresStride, kThreadsX * kThreadsY>(
        args.bias, call.args.d_bias, 1, at, tiles.d_scores);
  }
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
