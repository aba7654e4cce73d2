// FlashAttention's forward of e4m3 on tensor cores (mma.m16n8k32, sm_89 and up), for softmax.
// Tasks, tiles and masks are those of forward_mma.cu; rows travel as half as many halves. A block
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
#include "kernels/attention/cuda/forward_shares.cuh"
#include "kernels/attention/cuda/fp8.cuh"
#include "kernels/attention/cuda/mma_weights.cuh"
#include "kernels/attention/fp8.h"

namespace serrate {
namespace {

static_assert(kFp8Block == kMmaTile);

// AttentionFp8Forward as kernels read it; q, k and v of `attention` are rows of halves.
struct Fp8Call {
  AttentionView attention;
  Fp8View q, k, v;
  std::int64_t lse_per_head;
};

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

__device__ std::uint32_t pack_weights(float a, float b, float c, float d) {
  return pack_e4m3(a, b) | static_cast<std::uint32_t>(pack_e4m3(c, d)) << 16;
}

// Undone by the scales of values.
constexpr float kWeightScale = 0x1p8f;

// sums += weights times `count` rows of values times their scale. Of block 2 n and 2 n + 1 of sums
// a lane has the columns 16 n + 4 q, + 2 and 16 n + 4 q + 1, + 2.
template <int kDim, int kBlocks>
__device__ void add_weighted_rows(const Fragment<kBlocks>& weights, Rows8<kDim> values,
                                  int first_key, int count, float scale, Fragment<kDim / 8>& sums) {
  constexpr int kSteps = kBlocks / 4;
  std::uint32_t a[kSteps][4];
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto& low = weights[4 * k + i / 2 * 2];
      const auto& high = weights[4 * k + i / 2 * 2 + 1];
      const int r = i % 2 * 2;
      a[k][i] = pack_weights(kWeightScale * low[r], kWeightScale * low[r + 1],
                             kWeightScale * high[r], kWeightScale * high[r + 1]);
    }
  }
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
  }
}

// Scales of 32 tiles of a sequence's keys and values, a tile a lane.
struct TileScales {
  int chunk = -1;
  float k = 0, v = 0;

  // Brings those of a tile's 32 here. The warp calls it.
  __device__ void find(const Fp8Call& call, const WarpTask& task, int tile) {
    if (tile / 32 == chunk) return;
    chunk = tile / 32;
    const std::int64_t mine = chunk * 32 + lane_index();
    if (mine * kMmaTile >= task.at.num_keys) return;
    const std::int64_t place = first_fp8_block(call.attention.key_offsets, task.at.sequence) + mine;
    k = call.k.scales_of(task.key_head)[place];
    v = call.v.scales_of(task.key_head)[place];
  }
};

__device__ float scale_of_queries(const Fp8Call& call, const TilePair& at) {
  if (at.first_query >= at.queries.count) return 0;
  const AttentionView& args = call.attention;
  const std::int64_t first =
      args.num_shared_queries > 0 ? 0 : first_fp8_block(args.query_offsets, at.sequence);
  return call.q.scales_of(at.head)[first + at.first_query / kFp8Block];
}

// A lane's four columns of a row, from `column` on.
__device__ void store_four(const float (&x)[4], const OutputHeads& to, std::int64_t token,
                           std::int64_t head, int column) {
  if (to.type == DataType::kFloat32) {
    *reinterpret_cast<float4*>(view_as<float>(to).at(token, head) + column) =
        make_float4(x[0], x[1], x[2], x[3]);
  } else {
    *reinterpret_cast<uint2*>(view_as<__nv_bfloat16>(to).at(token, head) + column) =
        make_uint2(Mma<__nv_bfloat16>::pack(x[0], x[1]), Mma<__nv_bfloat16>::pack(x[2], x[3]));
  }
}

template <int kDim>
__device__ void write_queries(const Fp8Call& call, const TilePair& at,
                              const Fragment<kDim / 8>& sums, const OnlineSoftmax& softmax) {
  const AttentionView& args = call.attention;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = sum_of_four(softmax.sum[r]);
    const std::int64_t query = at.first_query + lane_index() / 4 + 8 * r;
    if (query >= at.queries.count) continue;
    const bool saw_none = sum == 0;
    const float factor = 1 / sum;
    const int q = lane_index() % 4;
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      float four[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        four[c] = saw_none ? 0 : sums[2 * n + c % 2][2 * r + c / 2] * factor;
      }
      store_four(four, args.out, at.queries.in_out + query, at.head, 16 * n + 4 * q);
    }
    if (args.lse.empty() || q != 0) continue;
    args.lse[at.head * call.lse_per_head + at.queries.in_out + query] =
        saw_none ? -INFINITY : (softmax.max[r] + log2f(sum)) / kLog2e;
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
  static_assert(sizeof(state) <= kStaticBytes);
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
    slots.forget();
    TileScales scales;
    for (int items = task.items; items > 0; --items) {
      copy_rows<kTerms * kDim / 2>(args.q, at.queries.in_q + at.first_query, at.head, task.count(),
                                   q, first_row);
      set_key_ranges(args, at, ranges);
      const float query_scale = scale_of_queries(call, at) * args.scale * kLog2e;
      Fragment<kDim / 8> sums = {};
      OnlineSoftmax softmax;
      LaneTile tile{static_cast<int>(at.first_query) + lane / 4, ranges, 0, 0, false};
      slots.for_each_tile(
          args, task, ranges, state.list,
          [&](int number, TileClass seen, Rows8<kDim> k, Rows8<kDim> v) {
            tile.is_full = seen.is_full;
            scales.find(call, task, number);
            const float score_scale = query_scale * __shfl_sync(~0u, scales.k, number % 32);
            const int first_key = number * kMmaTile;
            const int count =
                static_cast<int>(std::min<std::int64_t>(at.num_keys - first_key, task.span));
#pragma unroll 1
            for (int column = 0; column < kMmaTile; column += 8 * kBlocks) {
              const int key = task.first_row + column;
              tile.first_key = first_key + column;
              tile.num_columns = count - column;
              if (seen.is_empty || tile.num_columns <= 0) break;
              Fragment<kBlocks> scores;
              multiply_rows<kDim / 2, kBlocks, __nv_bfloat16, MmaE4m3, kTerms>(
                  q, first_row, k, key, tile.num_columns, scores);
              const unsigned visible =
                  visible_pairs<Extras::kNone, kBlocks>(args, at, tile, scores);
              for_each_score<kBlocks>(tile, scores, [&](int bit, int, int, float& score) {
                score = (visible >> bit & 1) != 0 ? score_scale * score : -INFINITY;
              });
              float factors[2];
              online_softmax<kBlocks>(scores, softmax, factors);
              scale_rows(sums, factors);
              const float value_scale = __shfl_sync(~0u, scales.v, number % 32) / kWeightScale;
              add_weighted_rows<kDim, kBlocks>(scores, v, key, tile.num_columns, value_scale, sums);
            }
          });
      write_queries<kDim>(call, at, sums, softmax);
      __syncwarp();  // all lanes have read the task
      go_to_next_item(task, numbers.rows_a_block);
    }
  }
#endif
}

template <int kDim>
void run(const Fp8Call& call, const WorkList& work, const Stream& stream) {
  constexpr int kQueryColumns = fp8_terms_of_queries(kDim) * kDim / 2;
  for_each_share<kDim>(call.attention, kQueryColumns, kDim / 2, true, stream,
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
bool has_own_list(const AttentionView& args, const AttentionPlan* plan) {
  return plan && (may_decode(args) || !plan->on_cuda());
}

}  // namespace

template <>
void jagged_attention_fp8_forward_on<DeviceType::kCuda>(const AttentionFp8Forward& args,
                                                        const Stream& stream) {
  AttentionForward attention = args.attention;
  attention.q = as_halves(args.q), attention.k = as_halves(args.k);
  attention.v = as_halves(args.v);
  AttentionView view = view_of(attention);
  const AttentionPlan* const plan = has_own_list(view, attention.plan) ? nullptr : attention.plan;
  view.never_decodes = true;
  const Fp8Call call{view, view_of(args.q, view.num_heads), view_of(args.k, view.num_key_heads),
                     view_of(args.v, view.num_key_heads),
                     static_cast<std::int64_t>(view.lse.size()) / view.num_heads};
  with_fp8_head_dim(view.head_dim, [&](auto dim) {
    check_has_e4m3(attend<dim(), kWarps>);
    with_work_list(view, plan, stream,
                   [&](const WorkList& work) { run<dim()>(call, work, stream); });
  });
}

template <>
std::int64_t jagged_attention_fp8_forward_workspace_on<DeviceType::kCuda>(
    const AttentionFp8Forward& args, const Stream&) {
  const AttentionView view = view_of(args.attention);
  if (!has_own_list(view, args.attention.plan)) return 0;
  return CudaAttentionPlan::size(batch_size_of(view)) *
         static_cast<std::int64_t>(sizeof(std::int64_t));
}

}  // namespace serrate
