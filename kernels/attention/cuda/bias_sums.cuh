#pragma once

#include <cstdint>

#include "kernels/attention/cuda/scores.cuh"
#include "kernels/cuda/fragments.cuh"

// How gradients of scores are added to those of biases and tables, in a fixed order and without
// atomics.
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

}  // namespace serrate
