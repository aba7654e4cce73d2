// FlashAttention's forward on tensor cores (mma.m16n8k16, sm_80 and up), for bfloat16. A block of
// four warps takes 64 queries of a sequence in one head, 16 a warp, and goes through the tiles of
// keys that its mask leaves; up to 32 queries and keys, several sequences and heads share the
// block, a warp or two each. Values are copied to shared memory while scores are computed, and the
// next keys while values are summed.
#include <cmath>

#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma_scores.cuh"
#include "kernels/attention/cuda/tensor_cores.h"

namespace serrate {
namespace {

template <int kDim>
struct ForwardTiles {
  static constexpr int kSize = 3 * kMmaTile * kDim;  // bfloat16
  SwizzledRows<kDim> q{dynamic_shared<__nv_bfloat16>()}, k{q.data + kMmaTile * kDim},
      v{k.data + kMmaTile * kDim};
};

// What a lane sums of its two queries; the sums of weights are of the lane's columns alone.
template <int kDim>
struct RunningSums {
  Fragment<kDim / 8> out = {};
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {};
};

// The four lanes that share a row.
__device__ float max_of_four(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ float sum_of_four(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// Scores become weights times 2^max; what was summed before shrinks with a new maximum.
template <int kDim, int kBlocks>
__device__ void online_softmax(Fragment<kBlocks>& scores, RunningSums<kDim>& sums) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float max = sums.max[r], sum = 0;
#pragma unroll
    for (const auto& block : scores) max = fmaxf(max, fmaxf(block[2 * r], block[2 * r + 1]));
    max = max_of_four(max);
    // A query that has seen no key yet: its scores, all -infinity, must give 0.
    const float shift = max == -INFINITY ? 0 : max;
#pragma unroll
    for (auto& block : scores) {
#pragma unroll
      for (int i = 2 * r; i < 2 * r + 2; ++i) {
        block[i] = exp2f(block[i] - shift);
        sum += block[i];
      }
    }
    const float factor = exp2f(sums.max[r] - shift);
    sums.sum[r] = fmaf(factor, sums.sum[r], sum);
    sums.max[r] = max;
#pragma unroll
    for (auto& block : sums.out) {
      block[2 * r] *= factor;
      block[2 * r + 1] *= factor;
    }
  }
}

// Scores of a warp's queries and a tile of keys become what weighs the values.
template <Extras kExtras, int kDim, int kBlocks>
__device__ void weigh(const AttentionView& args, const TilePair& at, const LaneTile& tile,
                      Fragment<kBlocks>& scores, RunningSums<kDim>& sums) {
  const unsigned visible = visible_pairs<kExtras, kBlocks>(args, at, tile, scores);
  finish_scores<kExtras, kBlocks>(args, at, tile, visible, scores);
  if (is_softmax(args)) {
    online_softmax<kDim, kBlocks>(scores, sums);
  } else {
    for_each_score<kBlocks>(tile, scores, [&](int bit, int, int, float& x) {
      x = (visible >> bit & 1) != 0 ? silu(x).value / args.silu_divisor : 0;
    });
  }
  if (kExtras == Extras::kNone || !args.has_dropout) return;
  const unsigned kept = kept_pairs<kBlocks>(args, at, tile);
  for_each_score<kBlocks>(tile, scores, [&](int bit, int, int, float& weight) {
    weight = (kept >> bit & 1) != 0 ? weight * args.draw.scale : 0;
  });
}

template <int kDim>
__device__ void write_queries(const AttentionView& args, const WarpTask& task,
                              RunningSums<kDim>& sums, SwizzledRows<kDim> stage) {
  const TilePair& at = task.at;
  if (is_softmax(args)) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = sum_of_four(sums.sum[r]);
      const bool saw_none = sum == 0;
      const float factor = 1 / sum;
#pragma unroll
      for (auto& block : sums.out) {
        block[2 * r] = saw_none ? 0 : block[2 * r] * factor;
        block[2 * r + 1] = saw_none ? 0 : block[2 * r + 1] * factor;
      }
      const std::int64_t query = at.first_query + lane_index() / 4 + 8 * r;
      if (args.lse.empty() || lane_index() % 4 != 0 || query >= at.queries.count) continue;
      const std::int64_t row_of_head =
          at.head * (static_cast<std::int64_t>(args.lse.size()) / args.num_heads);
      args.lse[row_of_head + at.queries.in_out + query] =
          saw_none ? -INFINITY : (sums.max[r] + log2f(sum)) / kLog2e;
    }
  }
  write_rows<kDim>(sums.out, stage, thread_index() / kLanes * kWarpRows, args.out,
                   at.queries.in_out + at.first_query, at.head, task.count());
}

// What registers allow: blocks of a processor, and blocks of 8 columns of a fragment of scores.
constexpr int blocks_a_processor(int head_dim, Extras extras) {
  return head_dim <= (extras == Extras::kNone ? 64 : 32) ? 3 : 2;
}
constexpr int forward_blocks(int head_dim) {
  return head_dim <= 128 ? 8 : 2;
}

// One task after the other for each block, the longest sequences first.
template <int kDim, Extras kExtras>
__global__ void __launch_bounds__(kThreadsX* kThreadsY, blocks_a_processor(kDim, kExtras))
    attend(const __grid_constant__ AttentionView args, const WorkList work) {
  constexpr int kBlocks = forward_blocks(kDim);
  // What a warp reads now and then is in shared memory, as registers are full.
  __shared__ TileList list;
  __shared__ KeyRanges ranges[kMmaTile];
  __shared__ WarpTask tasks[kWarps];
  const ForwardTiles<kDim> tiles;
  const int lane = lane_index(), warp = thread_index() / kLanes, first_row = warp * kWarpRows;
  const TaskNumbers numbers{work.first_query_tile, args.num_heads};
  __shared__ std::int64_t tasks_of_all;
  if (thread_index() == 0) tasks_of_all = num_tasks(args, work, numbers);
  __syncthreads();
  for (std::int64_t index = blockIdx.x; index < tasks_of_all; index += gridDim.x) {
    WarpTask found = task_at(args, work, numbers, index, 1);
    found.at.first_query += found.row_in_span();
    if (lane == 0) tasks[warp] = found;
    __syncwarp();
    const WarpTask& task = tasks[warp];
    const TilePair& at = task.at;
    // A tile of the keys or values of the warp's problem, of which it copies its share.
    const auto copy_tile = [&](const InputHeads& from, int tile, SwizzledRows<kDim> to) {
      const int key = tile * kMmaTile + task.row_in_span();
      copy_rows<kDim>(from, at.in_keys + key, task.key_head, at.num_keys - key, to, first_row);
    };
    copy_rows<kDim>(args.q, at.queries.in_q + at.first_query, at.head, task.count(), tiles.q,
                    first_row);
    copy_async_commit();
    if (lane < kWarpRows) ranges[first_row + lane] = key_ranges(args, at, at.first_query + lane);
    __syncwarp();
    RunningSums<kDim> sums;
    LaneTile tile{static_cast<int>(at.first_query) + lane / 4, ranges + first_row, 0, 0, false};
    for (int base = 0; base == 0 || base * kMmaTile < at.num_keys; base += TileList::kTiles) {
      __syncthreads();  // the list and the tiles before have been read
      list.fill(args, at, ranges + first_row, at.first_query, task.count(), base);
      __syncthreads();
      int now = list.next(0);
      if (now < TileList::kTiles) copy_tile(args.k, base + now, tiles.k);
      copy_async_commit();
      while (now < TileList::kTiles) {
        const TileClass seen = list.of_warp(now);
        const int next = list.next(now + 1);
        copy_async_wait<0>();
        __syncthreads();  // the keys are there, the values before have been read
        copy_tile(args.v, base + now, tiles.v);
        copy_async_commit();
        tile.is_full = seen.is_full;
        const int first_key = (base + now) * kMmaTile;
        const int count =
            static_cast<int>(std::min<std::int64_t>(at.num_keys - first_key, task.span));
#pragma unroll 1
        for (int column = 0; column < kMmaTile; column += 8 * kBlocks) {
          const int key = task.first_row + column;
          tile.first_key = first_key + column;
          tile.num_columns = count - column;
          const bool is_empty = seen.is_empty || tile.num_columns <= 0;
          Fragment<kBlocks> scores;
          if (!is_empty) {
            multiply_rows<kDim, kBlocks>(tiles.q, first_row, tiles.k, key, tile.num_columns,
                                         scores);
          }
          const bool is_last = column + 8 * kBlocks == kMmaTile;
          copy_async_wait<0>();
          if (column == 0 || is_last) __syncthreads();  // values are there, keys have been read
          if (is_last && next < TileList::kTiles) copy_tile(args.k, base + next, tiles.k);
          copy_async_commit();
          if (is_empty) continue;
          weigh<kExtras, kDim, kBlocks>(args, at, tile, scores, sums);
          add_weighted_rows<kDim, kDim, kBlocks>(scores, tiles.v, key, tile.num_columns, 0,
                                                 sums.out);
        }
        now = next;
      }
    }
    copy_async_wait<0>();
    write_queries<kDim>(args, task, sums, tiles.q);
  }
}

}  // namespace

bool are_aligned_halves(const InputHeads& heads) {
  constexpr std::int64_t kChunk = 8;
  return heads.type == HeadsType::kBFloat16 &&
         reinterpret_cast<std::uintptr_t>(heads.device_data) % 16 == 0 &&
         heads.token_stride % kChunk == 0 && heads.head_stride % kChunk == 0;
}

bool forward_takes_tensor_cores(const AttentionView& args) {
  if (args.head_dim == 256 && extras_of(args) == Extras::kAny) return false;  // too many registers
  return tensor_cores_have(args.head_dim) && are_aligned_halves(args.q) &&
         are_aligned_halves(args.k) && are_aligned_halves(args.v) && are_aligned_halves(args.out);
}

void forward_on_tensor_cores(const AttentionForward& args, const Stream& stream) {
  const AttentionView view = view_of(args);
  with_work_list(args, stream, [&](const WorkList& work) {
    const auto run = [&](auto dim) {
      constexpr std::int64_t kFloats = ForwardTiles<dim()>::kSize / 2;
      if constexpr (dim() < 256) {
        if (extras_of(view) == Extras::kAny) {
          return launch_tiles(attend<dim(), Extras::kAny>, kFloats, stream, view, work);
        }
      }
      launch_tiles(attend<dim(), Extras::kNone>, kFloats, stream, view, work);
    };
    if (args.head_dim == 32) run(std::integral_constant<int, 32>());
    if (args.head_dim == 64) run(std::integral_constant<int, 64>());
    if (args.head_dim == 128) run(std::integral_constant<int, 128>());
    if (args.head_dim == 256) run(std::integral_constant<int, 256>());
  });
}

}  // namespace serrate
