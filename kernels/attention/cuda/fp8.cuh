#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/attention/cuda/mma/weights.cuh"
#include "kernels/attention/cuda/work_list.h"
#include "kernels/attention/fp8.h"
#include "src/core/cuda_check.h"

namespace serrate {

/// Calls f(head_dim, as a constant), one that kernels of e4m3 have.
template <typename F>
void with_fp8_head_dim(std::int64_t head_dim, F&& f) {
  if (head_dim == 64) f(std::integral_constant<int, 64>());
  if (head_dim == 128) f(std::integral_constant<int, 128>());
  if (head_dim == 256) f(std::integral_constant<int, 256>());
}

/// Throws unless the kernel as built for this device has code; sm_80's cubin, which sm_89 also
/// runs, and code compiled from its PTX do not.
template <typename Kernel>
void check_has_e4m3(Kernel* kernel) {
  cudaFuncAttributes attributes{};
  cuda_check(cudaFuncGetAttributes(&attributes, kernel));
  require_e4m3(attributes.ptxVersion);
}

/// AttentionFp8Forward as kernels read it; q, k and v of `attention` are rows of halves.
struct Fp8Call {
  AttentionView attention;
  Fp8View q, k, v;
  std::int64_t lse_per_head;
};

/// What a call takes by wgmma of its sequences, as tensor_cores.h has it for halves.
bool longest_take_wgmma(const Fp8Call& call, const Stream& stream);
void forward_of_longest(const Fp8Call& call, const WorkList& work, const Stream& stream);

#if SERRATE_HAS_E4M3

/// The scale of the block from first_query on.
__device__ inline float scale_of_queries(const Fp8Call& call, const TilePair& at,
                                         std::int64_t first_query) {
  if (first_query >= at.queries.count) return 0;
  const AttentionView& args = call.attention;
  const std::int64_t first =
      args.num_shared_queries > 0 ? 0 : first_fp8_block(args.query_offsets, at.sequence);
  return call.q.scales_of(at.head)[first + first_query / kFp8Block];
}

/// The scales of a tile's keys and values, which are a block of theirs (first_fp8_block).
__device__ inline float2 scales_of_keys(const Fp8Call& call, std::int64_t key_head,
                                        std::int64_t block) {
  return {call.k.scales_of(key_head)[block], call.v.scales_of(key_head)[block]};
}

/// What weights are rounded times: the largest, 1, stays what it is, and those down to 2^-14 of it
/// keep their four bits. Undone by the scales of values.
inline constexpr float kWeightExponent = 8, kWeightScale = 0x1p8f;

/// Weights times `scale` as the left side of products over 32 keys each: of 16 a lane has 2q, 2q +
/// 1, 2q + 8 and 2q + 9, one after the other.
template <int kBlocks>
__device__ void round_to_e4m3(const Fragment<kBlocks>& weights, float scale,
                              std::uint32_t (&a)[kBlocks / 4][4]) {
#pragma unroll
  for (int k = 0; k < kBlocks / 4; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto& low = weights[4 * k + i / 2 * 2];
      const auto& high = weights[4 * k + i / 2 * 2 + 1];
      const int r = i % 2 * 2;
      a[k][i] = pack_e4m3(scale * low[r], scale * low[r + 1]) |
                static_cast<std::uint32_t>(pack_e4m3(scale * high[r], scale * high[r + 1])) << 16;
    }
  }
}

/// A warp's rows of the output, from first_query on. Of blocks 2 n and 2 n + 1 of sums a lane has
/// the columns 16 n + 4 q, + 2 and 16 n + 4 q + 1, + 2.
template <int kDim>
__device__ void write_fp8_queries(const Fp8Call& call, const TilePair& at, std::int64_t first_query,
                                  const Fragment<kDim / 8>& sums, const OnlineSoftmax& softmax,
                                  int lane) {
  const AttentionView& args = call.attention;
  const bool is_float = args.out.type == DataType::kFloat32;
  const int q = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float sum = sum_of_four(softmax.sum[r]);
    const std::int64_t query = first_query + lane / 4 + 8 * r;
    if (query >= at.queries.count) continue;
    const bool saw_none = sum == 0;
    const float factor = 1 / sum;
    const std::int64_t token = at.queries.in_out + query;
    char* const row =
        is_float ? reinterpret_cast<char*>(view_as<float>(args.out).at(token, at.head))
                 : reinterpret_cast<char*>(view_as<__nv_bfloat16>(args.out).at(token, at.head));
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      float four[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        four[c] = saw_none ? 0 : sums[2 * n + c % 2][2 * r + c / 2] * factor;
      }
      const int column = 16 * n + 4 * q;
      if (is_float) {
        *reinterpret_cast<float4*>(row + 4 * column) =
            make_float4(four[0], four[1], four[2], four[3]);
      } else {
        *reinterpret_cast<uint2*>(row + 2 * column) = make_uint2(
            Mma<__nv_bfloat16>::pack(four[0], four[1]), Mma<__nv_bfloat16>::pack(four[2], four[3]));
      }
    }
    if (args.lse.empty() || q != 0) continue;
    args.lse[at.head * call.lse_per_head + token] =
        saw_none ? -INFINITY : (softmax.max[r] + log2f(sum)) / kLog2e;
  }
}

#endif

}  // namespace serrate
