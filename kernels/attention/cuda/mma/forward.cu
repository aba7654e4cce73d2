// FlashAttention's forward on tensor cores (sm_80 and up), for halves (mma.m16n8k16) and for
// float32 in tf32 (mma.m16n8k8). A warp takes 16 queries of a sequence in one head; its block, of
// four warps or eight, goes through the tiles of 64 keys that its mask leaves. Up to 32 queries and
// keys, several sequences and heads share a block, a warp or two each. Of longer sequences a block
// takes one query block after the other, of all heads that share keys, and keeps as many tiles of
// keys and values as its shared memory has room for, up to eight: so many keys are read once. The
// next tile is copied while one is computed.
#include "kernels/attention/cuda/mma/forward_shares.cuh"
#include "kernels/attention/cuda/mma/weights.cuh"
#include "kernels/attention/cuda/tensor_cores.h"

namespace serrate {
namespace {

// What registers allow: warps that have the same 16 queries, with all scores and a part of the
// columns of out each; blocks of a processor; blocks of 8 columns of a fragment of scores.
constexpr int warps_that_share_out(int head_dim, Extras extras) {
  return head_dim == 256 && extras == Extras::kAny ? 2 : 1;
}
constexpr int blocks_a_processor(int head_dim, int num_warps, Extras extras) {
  if (num_warps > kWarps) return head_dim == 32 && extras == Extras::kNone ? 2 : 1;
  return head_dim <= (extras == Extras::kNone ? 64 : 32) ? 3 : 2;
}
// Shared bytes in float32 of a block of many queries with one tile, or of few with all theirs.
constexpr std::int64_t forward_bytes(std::int64_t head_dim) {
  const std::int64_t row_bytes = head_dim * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t of_short =
      kMmaTile * row_bytes + short_size(head_dim) / kMmaTile * slot_bytes(row_bytes);
  return std::max(warps_for_long(head_dim) * kWarpRows * row_bytes + slot_bytes(row_bytes),
                  of_short);
}
constexpr int forward_blocks(int columns, int slot_rows) {
  return columns > 128 ? 2 : slot_rows / 8;
}

// One task after the other for each block, the longest sequences first.
template <int kDim, class Half, Extras kExtras, int kNumWarps>
__global__ void __launch_bounds__(kNumWarps* kLanes, blocks_a_processor(kDim, kNumWarps, kExtras))
    attend(const __grid_constant__ AttentionView args, const WorkList work,
           const ForwardShare share) {
  constexpr int kSharing = warps_that_share_out(kDim, kExtras), kColumns = kDim / kSharing;
  constexpr int kRows = kNumWarps * kWarpRows / kSharing;
  __shared__ QueryBlock<kNumWarps> state;
  static_assert(sizeof(state) <= kStaticBytes);
  const int lane = lane_index();
  const WarpPart<kDim, kSharing> own;
  using Rows = SwizzledRows<kDim, Half>;
  const Rows q{dynamic_shared<Half>()};
  using Slots = KeySlots<kDim, kNumWarps, Half>;
  constexpr int kBlocks = forward_blocks(kColumns, Slots::kRows);
  Slots slots(q.data + kRows * kDim, share.slots);
  KeyRanges* const ranges = state.ranges + own.warp * kWarpRows;
  WarpTask& task = state.tasks[own.warp];
  TilePair& at = task.at;
  const TaskNumbers numbers = numbers_of<kDim>(args, work, share);
  if (thread_index() == 0) {
    const TaskRange range = range_of(args, work, numbers, share);
    state.range = range;
  }
  __syncthreads();
  for (std::int64_t index = state.range.begin + blockIdx.x; index < state.range.end;
       index += gridDim.x) {
    state.take(args, work, numbers, index);
    slots.forget();
    for (int items = task.items; items > 0; --items) {
      if (own.part == 0) {
        copy_rows<kDim>(args.q, at.queries.in_q + at.first_query, at.head, task.count(), q,
                        own.row);
      }
      set_key_ranges(args, at, ranges);
      Fragment<kColumns / 8> sums = {};
      OnlineSoftmax softmax;
      LaneTile tile{static_cast<int>(at.first_query) + lane / 4, ranges, 0, 0, false};
      slots.for_each_tile(
          args, task, ranges, state.list, [&](int first_key, TileClass seen, Rows k, Rows v) {
            tile.is_full = seen.is_full;
            const int count =
                static_cast<int>(std::min<std::int64_t>(at.num_keys - first_key, task.span));
#pragma unroll 1
            for (int column = 0; column < Slots::kRows; column += 8 * kBlocks) {
              const int key = task.first_row % Slots::kRows + column;
              tile.first_key = first_key + column;
              tile.num_columns = count - column;
              if (seen.is_empty || tile.num_columns <= 0) break;
              Fragment<kBlocks> scores;
              multiply_rows<kDim, kBlocks>(q, own.row, k, key, tile.num_columns, scores);
              float factors[2];
              weigh<kExtras, kBlocks>(args, at, tile, scores, softmax, factors);
              if (is_softmax(args)) scale_rows(sums, factors);
              add_weighted_rows<kDim, kColumns, kBlocks>(scores, v, key, tile.num_columns,
                                                         own.first_column, sums);
            }
          });
      if (kSharing > 1) __syncthreads();  // the stage is rows of other warps
      write_queries(args, at, at.first_query, task.count(), own, sums, softmax, q.data,
                    kDim == 32 || kIsTf32<Half> ? lane_index_here() : lane);
      if (kSharing > 1) __syncthreads();
      go_to_next_item(task, numbers.rows_a_block);
    }
  }
}

template <int kDim, class Half, Extras kExtras>
void run(const AttentionView& args, const WorkList& work, bool has_longest, const Stream& stream) {
  constexpr int kRowBytes = kDim * sizeof(Half);
  for_each_share<kDim>(
      args, kRowBytes, kRowBytes, has_longest, stream,
      [&](auto num_warps, const ForwardShare& share, BlockShape block) {
        constexpr int kNumWarps = num_warps() * warps_that_share_out(kDim, kExtras);
        block.warps = kNumWarps;
        launch_warps(attend<kDim, Half, kExtras, kNumWarps>, block, stream, args, work, share);
      });
}

}  // namespace

bool are_rows_of_tensor_cores(const AttentionView& args, const InputHeads& heads) {
  const bool is_float = args.q.type == DataType::kFloat32;
  const std::int64_t chunk = is_float ? 4 : 8;
  return tensor_cores_have(args.head_dim) && (!is_float || args.in_tf32) &&
         heads.type == args.q.type &&
         reinterpret_cast<std::uintptr_t>(heads.device_data) % 16 == 0 &&
         heads.token_stride % chunk == 0 && heads.head_stride % chunk == 0;
}

bool forward_takes_tensor_cores(const AttentionView& args, const Stream& stream) {
  const auto takes = [&](const InputHeads& x) { return are_rows_of_tensor_cores(args, x); };
  // A block's queries and a tile of keys and values; of halves these have room everywhere.
  const bool has_room =
      args.q.type != DataType::kFloat32 || forward_bytes(args.head_dim) <= shared_bytes_of(stream);
  return has_room && takes(args.q) && takes(args.k) && takes(args.v) && takes(args.out);
}

void forward_on_tensor_cores(const AttentionForward& args, const Stream& stream) {
  const AttentionView view = view_of(args);
  with_work_list(view, args.plan, std::nullopt, stream, [&](const WorkList& work) {
    const bool on_wgmma = longest_take_wgmma(view, stream);
    if (on_wgmma) forward_of_longest(view, work, stream);
    with_rows(view, [&](auto dim, auto half) {
      using Half = decltype(half);
      if (extras_of(view) == Extras::kNone) {
        run<dim(), Half, Extras::kNone>(view, work, !on_wgmma, stream);
      } else {
        run<dim(), Half, Extras::kAny>(view, work, !on_wgmma, stream);
      }
    });
  });
}

}  // namespace serrate
