// The plain twin of the CPU's FlashAttention, in float32 on CUDA's cores: a block takes a tile of
// queries of one head, the keys go by in tiles, and a running maximum and sum for every query keep
// softmax exact.
#include <cmath>
#include <memory>

#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/scores.cuh"
#include "kernels/attention/cuda/tensor_cores.h"
#include "kernels/attention/cuda/tile.cuh"
#include "kernels/attention/cuda/work_list.h"
#include "kernels/cuda/primitives.cuh"

namespace serrate {
namespace {

// Of a thread's queries: the maximum of the scores so far, and the sum of 2^(score - maximum).
template <class Shape>
struct Softmax {
  float max[Shape::kRows], sum[Shape::kRows];
};

// Scores become weights times 2^max; `out`, what was summed before, shrinks with a new maximum.
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

template <class Shape>
__device__ void write_queries(const AttentionView& args, const TilePair& at,
                              const Softmax<Shape>& softmax, RowSums<Shape>& out) {
  for_each_row<Shape>([&](int row, int r) {
    const std::int64_t query = at.first_query + row;
    if (!is_softmax(args) || query >= at.queries.count) return;
    const float sum = softmax.sum[r];
    const bool saw_none = sum == 0;
#pragma unroll
    for (float& x : out[r]) x = saw_none ? 0 : x / sum;
    if (args.lse.empty() || threadIdx.x != 0) return;
    const std::int64_t row_of_head =
        at.head * (static_cast<std::int64_t>(args.lse.size()) / args.num_heads);
    args.lse[row_of_head + at.queries.in_out + query] =
        saw_none ? -INFINITY : (softmax.max[r] + log2f(sum)) / kLog2e;
  });
  store_rows<Shape>(out, 1, args.out, at.queries.in_out + at.first_query, at.head,
                    at.queries.count - at.first_query, static_cast<int>(args.head_dim));
}

// One tile of queries after the other for each block.
template <class Shape>
__global__ void __launch_bounds__(kThreadsX* kThreadsY)
    attend(const __grid_constant__ AttentionView args) {
  float* const q = dynamic_shared<float>();
  float *const k = q + Shape::kRowsSize, *const v = k + Shape::kRowsSize;
  float* const weights = v + Shape::kRowsSize;
  const int head_dim = static_cast<int>(args.head_dim);
  const std::int64_t num_tasks = num_query_tiles(args, Shape::kTile) * args.num_heads;
  for (std::int64_t task = blockIdx.x; task < num_tasks; task += gridDim.x) {
    const TilePlace tile = query_tile_at(args, Shape::kTile, task / args.num_heads);
    TilePair at = pair_of(args, tile.sequence, task % args.num_heads);
    at.first_query = tile.first;
    if (at.first_query >= at.queries.count) continue;
    const std::int64_t key_head = at.head / heads_per_key_head(args);
    load_rows<Shape>(args.q, at.queries.in_q + at.first_query, at.head,
                     at.queries.count - at.first_query, head_dim, q);
    Softmax<Shape> softmax;
    RowSums<Shape> out;
    set_zero<Shape>(out);
    for (int r = 0; r < Shape::kRows; ++r) softmax.max[r] = -INFINITY, softmax.sum[r] = 0;
    for (; at.first_key < at.num_keys; at.first_key += Shape::kTile) {
      const unsigned visible = visible_pairs<Shape>(args, at);
      if (__syncthreads_or(visible != 0) == 0) continue;
      const std::int64_t keys = at.num_keys - at.first_key;
      load_rows<Shape>(args.k, at.in_keys + at.first_key, key_head, keys, head_dim, k);
      load_rows<Shape>(args.v, at.in_keys + at.first_key, key_head, keys, head_dim, v);
      __syncthreads();
      Scores<Shape> scores;
      multiply<Shape>(q, k, visible == 0 ? 0 : head_dim, scores);
      finish_scores<Shape>(args, at, visible, scores);
      if (is_softmax(args)) {
        online_softmax<Shape>(scores, softmax, out);
      } else {
        pointwise_silu<Shape>(args, visible, scores);
      }
      if (args.has_dropout) drop<Shape>(args, at, scores);
      write_scores<Shape>(scores, weights);
      __syncwarp();  // a row is of one warp
      add_product<Shape, Weights::kAsTheyAre>(
          weights, v, std::min<std::int64_t>(keys, Shape::kTile), head_dim, out);
    }
    write_queries<Shape>(args, at, softmax, out);
    __syncthreads();
  }
}

}  // namespace

// The plain kernels' blocks find their tiles by the offsets; those on tensor cores have a list. A
// plan that is made without tokens is for either.
template <>
AttentionPlan plan_attention_on<DeviceType::kCuda>(const AttentionForward& args,
                                                   const Stream& stream) {
  if (!tensor_cores_have(args.head_dim) ||
      (args.q.device_data && !are_aligned_halves(args.q, args.q.type))) {
    return AttentionPlan(plan_key_of(args));
  }
  return {plan_key_of(args),
          std::make_unique<const CudaAttentionPlan>(list_work(view_of(args), stream))};
}

template <>
void jagged_attention_forward_on<DeviceType::kCuda>(const AttentionForward& args,
                                                    const Stream& stream) {
  if (forward_takes_tensor_cores(view_of(args))) return forward_on_tensor_cores(args, stream);
  with_tile_shape(args.head_dim, [&](auto shape) {
    using Shape = decltype(shape);
    launch_tiles(attend<Shape>, 3 * Shape::kRowsSize + Shape::kScoresSize, stream, view_of(args));
  });
}

template <>
std::int64_t jagged_attention_forward_workspace_on<DeviceType::kCuda>(const AttentionForward&,
                                                                      const Stream&) {
  return 0;
}

}  // namespace serrate
