#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/backward_tile.cuh"
#include "kernels/cuda/fragments.cuh"

// What biases and tables get of the gradients of scores, in a fixed order and without atomics.
namespace serrate {

/// d_bias += a factor times d_scores of kTile queries and keys from those of `at` on, in rows of
/// shared memory that are kStride apart; what is 0 need have no place. The thread that adds to a
/// value is always the same one, as values and pairs of a tile go together.
template <int kTile, int kStride, int kThreads>
__device__ __forceinline__ void add_to_bias(const BiasView& bias, float* d_bias, float factor,
                                            const TilePair& at, const float* d_scores) {
  const auto add = [&](int i, int j, float x) {
    if (x != 0) d_bias[bias_place(bias, at, at.first_query + i, at.first_key + j)] += factor * x;
  };
  const int thread = thread_index();
  float sum = 0;
  if (bias.query_stride == 0) {
    if (thread >= kTile) return;
    for (int i = 0; i < kTile; ++i) sum += d_scores[i * kStride + thread];
    add(0, thread, sum);
  } else if (bias.key_stride == 0) {
    if (thread >= kTile) return;
    for (int j = 0; j < kTile; ++j) sum += d_scores[thread * kStride + j];
    add(thread, 0, sum);
  } else {
    for (int pair = thread; pair < kTile * kTile; pair += kThreads) {
      const int x = pair / kTile, y = pair % kTile;
      const int i = bias.key_stride == 1 ? x : y, j = bias.key_stride == 1 ? y : x;
      add(i, j, d_scores[i * kStride + j]);
    }
  }
}

/// sums[entry] += x for all lanes of a warp, in an order that their entries decide; -1: of none.
__device__ inline void add_by_entry(float* sums, int entry, float x) {
  if (__all_sync(~0u, entry < 0)) return;
  const int lane = lane_index();
  const unsigned equal = __match_any_sync(~0u, entry), below = (1u << lane) - 1;
  int rank = __popc(equal & below);
  const bool is_first = rank == 0;
  unsigned above = equal & ~below & ~(1u << lane);
  // Each lane adds the next one of its entry that still counts; then every other one is done.
  while (__any_sync(~0u, above != 0)) {
    const int next = above != 0 ? __ffs(static_cast<int>(above)) - 1 : lane;
    const float y = __shfl_sync(~0u, x, next);
    if (above != 0) x += y;
    above &= ~__ballot_sync(~0u, rank % 2);
    rank /= 2;
  }
  if (is_first && entry >= 0) sums[entry] += x;
  __syncwarp();  // the next time, the entry may be another lane's
}

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
