#pragma once

#include <cmath>

#include "kernels/attention/cuda/mma/head_rows.cuh"
#include "kernels/attention/cuda/mma/scores.cuh"
#include "kernels/cuda/exp2.cuh"

// From scores to what weighs values, and from sums of weighted values to rows of the output: what
// the forwards on tensor cores share.
namespace serrate {

/// A lane's two queries: the largest score so far, or one that is not much smaller, and the sum of
/// weights in the lane's columns.
struct OnlineSoftmax {
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {};
};

/// The four lanes that share a row.
__device__ inline float max_of_four(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ inline float sum_of_four(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

/// The scale of scores as a positive one, so that the largest stays the largest; where it is
/// negative, the scores change their sign. 0 becomes a small one, by which -infinity stays what it
/// is.
template <int kBlocks>
__device__ float make_positive(float scale, Fragment<kBlocks>& scores) {
  if (scale < 0) {
#pragma unroll
    for (auto& block : scores) {
#pragma unroll
      for (float& x : block) x = -x;
    }
  }
  return scale == 0 ? 0x1p-126f : fabsf(scale);
}

/// The scores of pairs that are not visible become `hidden`.
template <int kBlocks>
__device__ void hide(const LaneTile& tile, unsigned visible, float hidden,
                     Fragment<kBlocks>& scores) {
  if (tile.is_full) return;
  for_each_score<kBlocks>(tile, scores, [&](int bit, int, int, float& score) {
    score = (visible >> bit & 1) != 0 ? score : hidden;
  });
}

/// Scores become 2^(scale * score - max + exponent), `scale` being positive and `lowered`
/// 2^-exponent. `max`, of a query, is its largest score so far, or one that is smaller by kSlack at
/// most: where it grows, what was summed before has to be multiplied by `factors`, and with this
/// slack it seldom grows. So weights are at most 2^kSlack (before 2^exponent and dropout), and as
/// exact as those of at most 1.
template <int kBlocks, int kSlack = 4>
__device__ void online_softmax(Fragment<kBlocks>& scores, float scale, OnlineSoftmax& softmax,
                               float (&factors)[2], float exponent = 0, float lowered = 1) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float largest = -INFINITY, sum = 0;
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
      largest = fmaxf(largest, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
    }
    largest = __fmul_rn(scale, max_of_four(largest));
    const float max = largest > softmax.max[r] + kSlack ? largest : softmax.max[r];
    // A query that has seen no key yet: its scores, all -infinity, must give 0.
    const float shift = max == -INFINITY ? 0 : max;
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
      for (int i = 2 * r; i < 2 * r + 2; ++i) {
        scores[n][i] = exp2_flushed(fmaf(scale, scores[n][i], exponent - shift));
        sum += scores[n][i];
      }
    }
    factors[r] = exp2_flushed(softmax.max[r] - shift);
    softmax.sum[r] = fmaf(factors[r], softmax.sum[r], lowered * sum);
    softmax.max[r] = max;
  }
}

/// What was summed of a lane's two queries, times a factor each, which is mostly 1.
template <int kBlocks>
__device__ void scale_rows(Fragment<kBlocks>& sums, const float (&factors)[2]) {
  if (!__any_sync(~0u, factors[0] != 1 || factors[1] != 1)) return;
#pragma unroll
  for (auto& block : sums) {
#pragma unroll
    for (int i = 0; i < 4; ++i) block[i] *= factors[i / 2];
  }
}

/// Products of a warp's queries and a tile of keys become what weighs the values. With softmax,
/// what was summed before is to be multiplied by `factors`.
template <Extras kExtras, int kBlocks>
__device__ void weigh(const AttentionView& args, const TilePair& at, const LaneTile& tile,
                      Fragment<kBlocks>& scores, OnlineSoftmax& softmax, float (&factors)[2]) {
  const unsigned visible = visible_pairs<kExtras, kBlocks>(args, at, tile);
  float scale = finish_scores<kExtras, kBlocks>(args, at, tile, visible, scores);
  if (is_softmax(args)) scale = make_positive<kBlocks>(scale, scores);
  hide<kBlocks>(tile, visible, is_softmax(args) ? -INFINITY : 0, scores);
  if (is_softmax(args)) {
    online_softmax<kBlocks>(scores, scale, softmax, factors);
  } else {
    for_each_score<kBlocks>(tile, scores,
                            [&](int, int, int, float& x) { x = FastActivation{}.silu(x).value; });
  }
  if (kExtras == Extras::kNone || !args.has_dropout) return;
  const unsigned kept = kept_pairs<kBlocks>(args, at, tile);
  for_each_score<kBlocks>(tile, scores, [&](int bit, int, int, float& weight) {
    weight = (kept >> bit & 1) != 0 ? weight * args.draw.scale : 0;
  });
}

/// Writes a warp's rows of the output, `count` queries from first_query on in the columns of `own`,
/// and their log-sum-exp. `stage` has a row of as many columns for each of the block's warps' rows.
template <class Part, class Half>
__device__ void write_queries(const AttentionView& args, const TilePair& at,
                              std::int64_t first_query, int count, const Part& own,
                              Fragment<Part::kColumns / 8>& sums, const OnlineSoftmax& softmax,
                              Half* stage, int lane = lane_index()) {
  if (is_softmax(args)) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = sum_of_four(softmax.sum[r]);
      const bool saw_none = sum == 0;
      const float factor = 1 / sum;
#pragma unroll
      for (auto& block : sums) {
        block[2 * r] = saw_none ? 0 : block[2 * r] * factor;
        block[2 * r + 1] = saw_none ? 0 : block[2 * r + 1] * factor;
      }
      const std::int64_t query = first_query + lane / 4 + 8 * r;
      if (args.lse.empty() || own.part > 0 || lane % 4 != 0 || query >= at.queries.count) {
        continue;
      }
      const std::int64_t row_of_head =
          at.head * (static_cast<std::int64_t>(args.lse.size()) / args.num_heads);
      args.lse[row_of_head + at.queries.in_out + query] =
          saw_none ? -INFINITY : (softmax.max[r] + log2f(sum)) / kLog2e;
    }
  } else {
    const float factor = scale_of_sums(args);
#pragma unroll
    for (auto& block : sums) {
#pragma unroll
      for (float& x : block) x *= factor;
    }
  }
  OutputHeads to = args.out;
  to.device_data = static_cast<Half*>(to.device_data) + own.first_column;
  write_rows<Part::kColumns, Half>(sums, {stage}, own.warp * kWarpRows, to,
                                   at.queries.in_out + first_query, at.head, count, lane);
}

}  // namespace serrate
