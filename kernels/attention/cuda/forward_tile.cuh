#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/attention/cuda/scores.cuh"
#include "kernels/attention/cuda/tile.cuh"
#include "kernels/cuda/primitives.cuh"

// A tile of queries and one of keys in the plain kernels of the forward: an online softmax.
namespace serrate {

/// For a thread's queries: the maximum of the scores so far, and the sum of 2^(score - maximum).
template <class Shape>
struct Softmax {
  float max[Shape::kRows], sum[Shape::kRows];

  __device__ Softmax() {
    for (int r = 0; r < Shape::kRows; ++r) max[r] = -INFINITY, sum[r] = 0;
  }
};

/// Scores become weights times 2^max; `out`, what was summed before, shrinks with a new maximum.
template <class Shape>
__device__ void online_softmax(Scores<Shape>& scores, Softmax<Shape>& softmax,
                               RowSums<Shape>& out) {
#pragma unroll
  for (int r = 0; r < Shape::kRows; ++r) {
    float max = softmax.max[r], sum = 0;
#pragma unroll
    for (int m = 0; m < Shape::kColumns; ++m) max = fmaxf(max, scores[r][m]);
    max = max_of_row(max);
    // A query that has seen no key yet: its scores, all -infinity, must give 0.
    const float shift = max == -INFINITY ? 0 : max;
#pragma unroll
    for (int m = 0; m < Shape::kColumns; ++m) {
      scores[r][m] = exp2f(scores[r][m] - shift);
      sum += scores[r][m];
    }
    const float factor = exp2f(softmax.max[r] - shift);
    softmax.sum[r] = fmaf(factor, softmax.sum[r], sum_of_row(sum));
    softmax.max[r] = max;
#pragma unroll
    for (float& x : out[r]) x *= factor;
  }
}

template <class Shape>
__device__ void pointwise_silu(const AttentionView& args, unsigned visible, Scores<Shape>& scores) {
#pragma unroll
  for (int r = 0; r < Shape::kRows; ++r) {
#pragma unroll
    for (int m = 0; m < Shape::kColumns; ++m) {
      scores[r][m] =
          has_pair<Shape>(visible, r, m) ? silu(scores[r][m]).value / args.silu_divisor : 0;
    }
  }
}

template <class Shape>
__device__ void drop(const AttentionView& args, const TilePair& at, Scores<Shape>& weights) {
  const unsigned kept = kept_pairs<Shape>(args, at);
#pragma unroll
  for (int r = 0; r < Shape::kRows; ++r) {
#pragma unroll
    for (int m = 0; m < Shape::kColumns; ++m) {
      weights[r][m] = has_pair<Shape>(kept, r, m) ? weights[r][m] * args.draw.scale : 0;
    }
  }
}

/// A block's rows of queries, and its tile of keys, of values and of weights, in shared memory.
template <class Shape>
struct ForwardTiles {
  static constexpr int kSize = 3 * Shape::kRowsSize + Shape::kScoresSize;
  float* const q = dynamic_shared<float>();
  float* const k = q + Shape::kRowsSize;
  float* const v = k + Shape::kRowsSize;
  float* const weights = v + Shape::kRowsSize;
};

/// Adds the tile of keys from at.first_key on, of which each thread knows what is visible of its
/// pairs; the block has seen that some are, and read the tile before.
template <class Shape>
__device__ void add_keys(const AttentionView& args, const TilePair& at, unsigned visible,
                         const ForwardTiles<Shape>& tiles, Softmax<Shape>& softmax,
                         RowSums<Shape>& out) {
  const int head_dim = static_cast<int>(args.head_dim);
  const std::int64_t key_head = at.head / heads_per_key_head(args);
  const std::int64_t keys = at.num_keys - at.first_key;
  load_rows<Shape>(args.k, at.in_keys + at.first_key, key_head, keys, head_dim, tiles.k);
  load_rows<Shape>(args.v, at.in_keys + at.first_key, key_head, keys, head_dim, tiles.v);
  __syncthreads();
  Scores<Shape> scores;
  multiply<Shape>(tiles.q, tiles.k, visible == 0 ? 0 : head_dim, scores);
  finish_scores<Shape>(args, at, visible, scores);
  if (is_softmax(args)) {
    online_softmax<Shape>(scores, softmax, out);
  } else {
    pointwise_silu<Shape>(args, visible, scores);
  }
  if (args.has_dropout) drop<Shape>(args, at, scores);
  write_scores<Shape>(scores, tiles.weights);
  __syncwarp();  // a row is of one warp
  add_product<Shape, Weights::kAsTheyAre>(
      tiles.weights, tiles.v, std::min<std::int64_t>(keys, Shape::kTile), head_dim, out);
}

}  // namespace serrate
