// FlashAttention's forward of e4m3 on tensor cores (mma.m16n8k32, sm_89 and up), for softmax; on
// Hopper, wgmma/forward.cu has the longest sequences.
// Tasks, tiles and masks are those of mma/forward.cu; rows travel as half as many halves. A block
// of rows is a tile, so that scales are the same in all of it: those of queries and keys are
// factors of scores, those of values of what a tile adds to the sums, in float32. Weights times 2^8
// are rounded to e4m3.
//
// Values have to be transposed, which ldmatrix does with pairs of bytes: a lane gets two columns of
// two keys from each 8 x 8 matrix, and bytes permuted make of two of these a fragment of either
// column. Its keys are then 2q, 2q + 1, 2q + 8, 2q + 9, the ones that the lane has weights of: sums
// run over keys in that order, and a lane has four neighbouring columns of every 16.
#include <cmath>

#include "kernels/attention/cuda/decoding.h"
#include "kernels/attention/cuda/fp8.cuh"
#include "kernels/attention/cuda/mma/forward_shares.cuh"
#include "kernels/attention/cuda/mma/weights.cuh"
#include "kernels/attention/cuda/tensor_cores.h"
#include "kernels/attention/fp8.h"

namespace serrate {
namespace {

static_assert(kFp8Block == kMmaTile);

// Rows of e4m3 in shared memory, and tiles of them.
template <int kDim>
using Rows8 = SwizzledRows<kDim / 2>;
template <int kDim>
using QueryRows8 = Rows8<fp8_terms_of_queries(kDim) * kDim>;
template <int kDim, int kNumWarps>
using Slots8 = KeySlots<kDim / 2, kNumWarps, __nv_bfloat16>;

// What registers allow: blocks of a processor.
constexpr int blocks_a_processor(int head_dim, int num_warps) {
  return num_warps > kWarps ? 1 : head_dim <= 64 ? 3 : 2;
}

#if SERRATE_HAS_E4M3

// And blocks of 8 columns of a fragment of scores.
constexpr int blocks_of_scores(int head_dim) {
  return head_dim <= 128 ? 8 : 4;
}

struct MmaE4m3 {
  __device__ void operator()(float (&d)[4], const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2]) const {
    mma_m16n8k32_e4m3(d, a, b);
  }
};

// sums, whose columns are write_fp8_queries's, += weights times `count` rows of values times their
// scale.
template <int kDim, int kBlocks>
__device__ void add_weighted_rows(const Fragment<kBlocks>& weights, Rows8<kDim> values,
                                  int first_key, int count, float scale, Fragment<kDim / 8>& sums) {
  constexpr int kSteps = kBlocks / 4;
  std::uint32_t a[kSteps][4];
  round_to_e4m3(weights, kWeightScale, a);
  const int lane = lane_index();
#pragma unroll
  for (int n = 0; n < kDim / 16; ++n) {
    float even[4] = {}, odd[4] = {};
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      const int left = count - 32 * k;
      if (left <= 0) break;
      // Behind the last 16 rows there may be another sequence's: the same ones again, which weigh
      // 0.
      const int row = first_key + 32 * k + (left > 16 ? lane : lane % 16);
      std::uint32_t pairs[4];
      load_matrices_transposed(pairs, values.data + (Rows8<kDim>::place(row, 0) ^ 8 * n));
      mma_m16n8k32_e4m3(
          even, a[k],
          {__byte_perm(pairs[0], pairs[1], 0x6420), __byte_perm(pairs[2], pairs[3], 0x6420)});
      mma_m16n8k32_e4m3(
          odd, a[k],
          {__byte_perm(pairs[0], pairs[1], 0x7531), __byte_perm(pairs[2], pairs[3], 0x7531)});
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums[2 * n][i] = fmaf(scale, even[i], sums[2 * n][i]);
      sums[2 * n + 1][i] = fmaf(scale, odd[i], sums[2 * n + 1][i]);
    }
    // There are no registers for products of several columns at a time.
    if (kDim == 256) __syncwarp();
  }
}

#endif

// One task after the other for each block, the longest sequences first.
template <int kDim, int kNumWarps>
__global__ void __launch_bounds__(kNumWarps* kLanes, blocks_a_processor(kDim, kNumWarps))
    attend(const __grid_constant__ Fp8Call call, const WorkList work, const ForwardShare share) {
#if SERRATE_HAS_E4M3
  constexpr int kBlocks = blocks_of_scores(kDim);
  const AttentionView& args = call.attention;
  __shared__ QueryBlock<kNumWarps> state;
  __shared__ int first_blocks[kNumWarps];  // of scales, for each warp's sequence
  static_assert(sizeof(state) + sizeof(first_blocks) <= kStaticBytes);
  const int lane = lane_index(), warp = thread_index() / kLanes, first_row = warp * kWarpRows;
  constexpr int kTerms = fp8_terms_of_queries(kDim);
  const QueryRows8<kDim> q{dynamic_shared<__nv_bfloat16>()};
  Slots8<kDim, kNumWarps> slots(q.data + kNumWarps * kWarpRows * kTerms * kDim / 2, share.slots);
  KeyRanges* const ranges = state.ranges + first_row;
  WarpTask& task = state.tasks[warp];
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
    if (lane == 0) {
      first_blocks[warp] = static_cast<int>(first_fp8_block(args.key_offsets, at.sequence));
    }
    __syncwarp();
    slots.forget();
    for (int items = task.items; items > 0; --items) {
      copy_rows<kTerms * kDim / 2>(args.q, at.queries.in_q + at.first_query, at.head, task.count(),
                                   q, first_row);
      set_key_ranges(args, at, ranges);
      const float query_scale = scale_of_queries(call, at, at.first_query) * args.scale * kLog2e;
      Fragment<kDim / 8> sums = {};
      OnlineSoftmax softmax;
      LaneTile tile{static_cast<int>(at.first_query) + lane / 4, ranges, 0, 0, false};
      slots.for_each_tile(
          args, task, ranges, state.list,
          [&](int first_key, TileClass seen, Rows8<kDim> k, Rows8<kDim> v) {
            tile.is_full = seen.is_full;
            if (seen.is_empty) return;
            const float2 scales =
                scales_of_keys(call, task.key_head, first_blocks[warp] + first_key / kMmaTile);
            const float score_scale = query_scale * scales.x, value_scale = scales.y / kWeightScale;
            const int count =
                static_cast<int>(std::min<std::int64_t>(at.num_keys - first_key, task.span));
#pragma unroll 1
            for (int column = 0; column < kMmaTile; column += 8 * kBlocks) {
              const int key = task.first_row + column;
              tile.first_key = first_key + column;
              tile.num_columns = count - column;
              if (tile.num_columns <= 0) break;
              Fragment<kBlocks> scores;
              multiply_rows<kDim / 2, kBlocks, __nv_bfloat16, MmaE4m3, kTerms>(
                  q, first_row, k, key, tile.num_columns, scores);
              const unsigned visible = visible_pairs<Extras::kNone, kBlocks>(args, at, tile);
              const float scale = make_positive<kBlocks>(score_scale, scores);
              hide<kBlocks>(tile, visible, -INFINITY, scores);
              float factors[2];
              online_softmax<kBlocks, 0>(scores, scale, softmax, factors);
              scale_rows(sums, factors);
              add_weighted_rows<kDim, kBlocks>(scores, v, key, tile.num_columns, value_scale, sums);
            }
          });
      write_fp8_queries<kDim>(call, at, at.first_query, sums, softmax, lane_index_here());
      __syncwarp();  // all lanes have read the task
      go_to_next_item(task, numbers.rows_a_block);
    }
  }
#endif
}

template <int kDim>
void run(const Fp8Call& call, const WorkList& work, bool has_longest, const Stream& stream) {
  constexpr int kQueryBytes = fp8_terms_of_queries(kDim) * kDim;
  for_each_share<kDim>(call.attention, kQueryBytes, kDim, has_longest, stream,
                       [&](auto num_warps, const ForwardShare& share, const BlockShape& block) {
                         launch_warps(attend<kDim, num_warps()>, block, stream, call, work, share);
                       });
}

InputHeads as_halves(const Fp8Heads& heads) {
  return DeviceHeads<const BFloat16>{reinterpret_cast<const BFloat16*>(heads.values.device_data),
                                     heads.values.token_stride / 2, heads.values.head_stride / 2};
}

// Whether a call makes a list though it has a plan, whose list has nothing to do for sequences that
// decode.
bool has_own_list(const AttentionForward& args, const Stream& stream) {
  AttentionView view = view_of(args);
  view.most_decoding_rows = most_rows(view, stream);
  return args.plan && (may_decode(view) || !args.plan->on_cuda());
}

}  // namespace

Fp8Call call_of(const AttentionFp8Forward& args) {
  AttentionForward attention = args.attention;
  attention.q = as_halves(args.q), attention.k = as_halves(args.k);
  attention.v = as_halves(args.v);
  const AttentionView view = view_of(attention);
  return {view, view_of(args.q, view.num_heads), view_of(args.k, view.num_key_heads),
          view_of(args.v, view.num_key_heads),
          static_cast<std::int64_t>(view.lse.size()) / view.num_heads};
}

template <>
void jagged_attention_fp8_forward_on<DeviceType::kCuda>(const AttentionFp8Forward& args,
                                                        const Stream& stream) {
  const Fp8Call call = call_of(args);
  const AttentionView& view = call.attention;
  const AttentionPlan* const plan =
      has_own_list(args.attention, stream) ? nullptr : args.attention.plan;
  with_fp8_head_dim(view.head_dim, [&](auto dim) {
    check_has_e4m3(attend<dim(), kWarps>);
    with_work_list(view, plan, std::nullopt, stream, [&](const WorkList& work) {
      const bool on_wgmma = longest_take_wgmma(call, stream);
      if (on_wgmma) forward_of_longest(call, work, stream);
      run<dim()>(call, work, !on_wgmma, stream);
    });
  });
}

template <>
std::int64_t jagged_attention_fp8_forward_workspace_on<DeviceType::kCuda>(
    const AttentionFp8Forward& args, const Stream& stream) {
  const Fp8Call call = call_of(args);
  const std::int64_t counter = longest_take_wgmma(call, stream) ? sizeof(Counter) : 0;
  if (!has_own_list(args.attention, stream)) return counter;
  return counter + CudaAttentionPlan::size(batch_size_of(call.attention)) *
                       static_cast<std::int64_t>(sizeof(std::int64_t));
}

}  // namespace serrate
