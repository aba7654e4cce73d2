#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/attention/cuda/mma/head_rows.cuh"
#include "kernels/attention/cuda/mma/scores.cuh"
#include "kernels/attention/cuda/warp_task.cuh"

// From scores and gradients of weights to what a backward on tensor cores sums and writes.
namespace serrate {

/// The product of 16 bytes of d_out, rounded as other products have them, and of out.
template <class Half>
__device__ float multiply_chunks(const Half* a, const Half* b) {
  const uint4 x = *reinterpret_cast<const uint4*>(a), y = *reinterpret_cast<const uint4*>(b);
  const unsigned of_x[4] = {x.x, x.y, x.z, x.w}, of_y[4] = {y.x, y.y, y.z, y.w};
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kIsTf32<Half>) {
      const std::uint32_t rounded = round_to_tf32(__uint_as_float(of_x[i])) & 0xFFFFE000u;
      sum = fmaf(__uint_as_float(rounded), __uint_as_float(of_y[i]), sum);
    } else {
      const float2 u = Mma<Half>::unpack(of_x[i]), v = Mma<Half>::unpack(of_y[i]);
      sum = fmaf(u.y, v.y, fmaf(u.x, v.x, sum));
    }
  }
  return sum;
}

/// The tiles of queries of a sequence, of all heads that share one of keys, head by head.
struct GroupTiles {
  std::int64_t first_head, group;
  int tiles;  // of a head

  __device__ std::int64_t steps() const { return group * tiles; }
  __device__ std::int64_t head(std::int64_t step) const { return first_head + step / tiles; }
  __device__ int first_query(std::int64_t step) const {
    return static_cast<int>(step % tiles) * kMmaTile;
  }
  /// A warp's place, in shared memory, becomes that of its 16 queries from `row` of a tile on.
  __device__ void go_to(std::int64_t step, int row, TilePair& at) const {
    __syncwarp();
    if (lane_index() == 0) {
      at.head = head(step);
      at.first_query = first_query(step) + row;
    }
    __syncwarp();
  }
};

/// What the backward needs of a warp's `count` queries, whose d_out are in shared memory.
template <int kDim, class Rows>
__device__ void sum_queries(const AttentionView& args, const TilePair& at, int count, Rows d_out,
                            int first_row, QuerySums* sums) {
  using Half = std::remove_pointer_t<decltype(d_out.at(0, 0))>;
  constexpr int kChunks = kDim / kChunkSize<Half>;
  constexpr int kLanesARow = kChunks < 8 ? kChunks : 8;
  const int lane = lane_index();
  const HeadsView<const Half> out = view_as<Half>(InputHeads(args.out));
  for (int row = lane / kLanesARow; row < kWarpRows; row += kLanes / kLanesARow) {
    float delta = 0;
    if (is_softmax(args) && row < count) {
      const Half* of_query = out.at(at.queries.in_out + at.first_query + row, at.head);
      for (int chunk = lane % kLanesARow; chunk < kChunks; chunk += kLanesARow) {
        delta +=
            multiply_chunks(d_out.at(first_row + row, chunk), of_query + chunk * kChunkSize<Half>);
      }
    }
    for (int lanes = 1; lanes < kLanesARow; lanes *= 2) {
      delta += __shfl_xor_sync(~0u, delta, lanes);
    }
    if (lane % kLanesARow != 0) continue;
    QuerySums of_row = query_sums(args, at, at.first_query + row, nullptr);
    of_row.delta = delta;
    sums[row] = of_row;
  }
  __syncwarp();
}

/// Scores become weights as dropout leaves them; d_weights, their gradients before dropout, become
/// the gradients of the scores; both without scale_of_sums(). `sums`: of the warp's 16 queries.
template <Extras kExtras, int kBlocks>
__device__ void score_gradients(const AttentionView& args, const TilePair& at, const LaneTile& tile,
                                const QuerySums* sums, Fragment<kBlocks>& weights,
                                Fragment<kBlocks>& d_weights) {
  const unsigned visible = visible_pairs<kExtras, kBlocks>(args, at, tile);
  const FastActivation activation{
      finish_scores<kExtras, kBlocks>(args, at, tile, visible, weights)};
  const bool has_dropout = kExtras == Extras::kAny && args.has_dropout;
  const unsigned kept = has_dropout ? kept_pairs<kBlocks>(args, at, tile) : ~0u;
  const int g = lane_index() / 4;
  const QuerySums of_rows[2] = {sums[g], sums[g + 8]};
#pragma unroll
  for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((visible >> (n * 4 + i) & 1) == 0) {
        weights[n][i] = d_weights[n][i] = 0;
        continue;
      }
      const float factor = !has_dropout ? 1 : (kept >> (n * 4 + i) & 1) != 0 ? args.draw.scale : 0;
      weight_and_gradient(args, of_rows[i / 2], factor, activation, weights[n][i], d_weights[n][i]);
    }
  }
}

/// Blocks of 8 keys whose scores a warp has at a time, of rows of values of so many bytes: what
/// registers allow beside the sums.
constexpr int gradient_blocks(int head_dim, std::int64_t value_bytes) {
  return head_dim * value_bytes <= 128 ? 8 : head_dim <= 128 ? 4 : 2;
}

/// Rows of a block, of which a warp has 16 of each of the first two, and the keys and values from
/// first_column on.
template <int kDim, class Half>
struct GradientRows {
  SwizzledRows<kDim, Half> q, d_out, k, v;
  int first_row, first_column;
};

/// Calls f(first column, weights, gradients of scores) for kColumns keys of a tile, some at a time;
/// keys that the warp does not see are 0.
template <int kDim, Extras kExtras, int kColumns, class Half, typename F>
__device__ void for_each_gradient(const AttentionView& args, const WarpTask& task, LaneTile tile,
                                  bool is_empty, const QuerySums* sums,
                                  const GradientRows<kDim, Half>& rows, F&& f) {
  constexpr int kBlocks = gradient_blocks(kDim, sizeof(Half));
  static_assert(kColumns % (8 * kBlocks) == 0);
  const int first_row = rows.first_row, begin = rows.first_column;
  tile.first_key += begin, tile.num_columns -= begin;
#pragma unroll 1
  for (int column = begin; column < begin + kColumns; column += 8 * kBlocks) {
    Fragment<kBlocks> weights = {}, d_scores = {};
    if (!is_empty && tile.num_columns > 0) {
      const int key = task.first_row + column;
      multiply_rows<kDim, kBlocks>(rows.q, first_row, rows.k, key, tile.num_columns, weights);
      multiply_rows<kDim, kBlocks>(rows.d_out, first_row, rows.v, key, tile.num_columns, d_scores);
      score_gradients<kExtras, kBlocks>(args, task.at, tile, sums, weights, d_scores);
    }
    f(column, weights, d_scores);
    tile.first_key += 8 * kBlocks, tile.num_columns -= 8 * kBlocks;
  }
}

/// A warp's rows times `scale`, by way of rows of shared memory that it alone uses.
template <int kDim, class Half>
__device__ void write_scaled(float scale, Fragment<kDim / 8>& sums, SwizzledRows<kDim, Half> stage,
                             int first_row, const OutputHeads& to, std::int64_t token,
                             std::int64_t head, std::int64_t count) {
#pragma unroll
  for (auto& block : sums) {
#pragma unroll
    for (float& x : block) x *= scale;
  }
  write_rows<kDim>(sums, stage, first_row, to, token, head, count,
                   kIsTf32<Half> ? lane_index_here() : lane_index());
}

/// d_q of a warp's `count` queries from at.first_query on, of one sequence, in kColumns columns
/// from first_column on: where sequences share queries it is a float32 row of the sequence's own,
/// to be summed over them. `stage` has a row of kColumns for each of the block's warps' rows.
template <int kColumns, class Half>
__device__ void write_d_q(const AttentionBackwardView& call, const TilePair& at, int count,
                          int first_column, Fragment<kColumns / 8>& d_q, Half* stage) {
  const float scale = call.forward.scale * scale_of_sums(call.forward);
  const std::int64_t token = at.queries.in_out + at.first_query;
  const int lane = lane_index();
  if (call.forward.num_shared_queries > 0) {
    const HeadsView<float> rows = view_as<float>(call.d_q);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = lane / 4 + 8 * r;
      if (row >= count) break;
      float* const to = rows.at(token + row, at.head) + first_column + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        *reinterpret_cast<float2*>(to + 8 * n) =
            make_float2(scale * d_q[n][2 * r], scale * d_q[n][2 * r + 1]);
      }
    }
    __syncwarp();  // all lanes have read `at` before it moves on
    return;
  }
  OutputHeads to = call.d_q;
  to.device_data = static_cast<Half*>(to.device_data) + first_column;
  write_scaled<kColumns, Half>(scale, d_q, {stage}, thread_index() / kLanes * kWarpRows, to, token,
                               at.head, count);
}

}  // namespace serrate
