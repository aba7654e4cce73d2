#pragma once

#include <cstdint>

#include "kernels/attention/cuda/fp8.cuh"
#include "kernels/attention/cuda/mma/weights.cuh"
#include "kernels/attention/cuda/wgmma/feed.cuh"

// What wgmma/forward.cu does in one way for halves and in another for e4m3.
namespace serrate {

#ifdef SERRATE_WGMMA

/// bfloat16 or float16 tokens.
template <int kHeadDim, class Half, Extras kExtras>
struct Halves : HalfTiles<kHeadDim> {
  using Call = HalfCall;
  static constexpr WgmmaType kType = kTypeOf<Half>;
  using Weights = LeftSide;

  const Call& call;

  __device__ void begin(float /*scale_of_queries*/) {}
  /// Products of a warp's queries and a tile of keys become weights.
  __device__ void weigh(const TilePair& at, const LaneTile& tile, float2 /*scales*/,
                        Fragment<8>& scores, OnlineSoftmax& softmax, float (&factors)[2]) {
    serrate::weigh<kExtras, 8, false>(call.attention, at, tile, scores, softmax, factors);
  }
  __device__ void shrink(const float (&factors)[2], Fragment<kHeadDim / 8>& sums) const {
    if (is_softmax(call.attention)) scale_rows(sums, factors);
  }
  __device__ static void round(const Fragment<8>& scores, Weights& weights) {
    round_weights<Half>(scores, weights);
  }
  /// What products add to, and adds that to the sums where it is not theirs.
  __device__ Fragment<kHeadDim / 8>& products(Fragment<kHeadDim / 8>& sums) { return sums; }
  __device__ void promote(Fragment<kHeadDim / 8>& /*sums*/) {}
  /// Issues sums += weights times 64 values.
  __device__ static void add_product(const Weights& weights, const unsigned char* values,
                                     Fragment<kHeadDim / 8>& sums) {
    add_rows<kHeadDim, Half>(weights, values, sums);
  }
  /// By way of `stage`, the queries of the group, all of whose warps call it.
  __device__ void write(const TilePair& at, int warp, Fragment<kHeadDim / 8>& sums,
                        const OnlineSoftmax& softmax, unsigned char* stage) {
    named_barrier_sync(group_barrier(warp / kGroupWarps), kGroupWarps * kLanes);
    const std::int64_t first_query = at.first_query + warp * kWarpRows;
    const std::int64_t left = at.queries.count - first_query;
    write_queries(call.attention, at, first_query,
                  static_cast<int>(std::min<std::int64_t>(left, kWarpRows)),
                  WarpPart<kHeadDim, 1>{warp}, sums, softmax, reinterpret_cast<Half*>(stage),
                  lane_index_here());
    fence_async_proxy_shared();
  }
};

/// e4m3 with scales of 64 rows. Sums are in units of the largest scale of values so far, times
/// 2^-8: weights are rounded times 2^8 and times the share of their values' scale in it.
template <int kHeadDim>
struct Fp8 : Fp8Tiles<kHeadDim> {
  using Call = Fp8Call;
  static constexpr WgmmaType kType = WgmmaType::kE4m3;
  /// wgmma's sums have 13 bits. What 64 keys add is added in float32 where there are registers for
  /// both.
  static constexpr bool kPromotes = kHeadDim <= 128;
  using Weights = std::uint32_t[kMmaTile / wgmma_depth(kType)][4];

  const Call& call;
  float score_scale = 0, unit = 0;
  Fragment<kPromotes ? kHeadDim / 8 : 1> of_tile = {};

  __device__ void begin(float scale_of_queries) {
    score_scale = scale_of_queries * call.attention.scale * kLog2e;
  }
  /// `scales` of the tile's keys and values.
  __device__ void weigh(const TilePair& at, const LaneTile& tile, float2 scales,
                        Fragment<8>& scores, OnlineSoftmax& softmax, float (&factors)[2]) {
    const unsigned visible = visible_pairs<Extras::kNone, 8>(call.attention, at, tile, scores);
    const float scale = score_scale * scales.x;
    for_each_score<8>(tile, scores, [&](int bit, int, int, float& score) {
      score = (visible >> bit & 1) != 0 ? scale * score : -INFINITY;
    });
    const float before = unit;
    unit = fmaxf(unit, scales.y);
    // Values that are 0 weigh as any do; of those below 2^-60 of the unit nothing is left.
    const float share = scales.y == 0 ? 1 : fmaxf(scales.y / unit, 0x1p-60f);
    const float exponent = 8 + (share == 1 ? 0 : log2f(share));
    online_softmax<8>(scores, softmax, factors, exponent, exp2_flushed(-exponent));
    if (unit == before) return;
    for (float& factor : factors) factor *= before / unit;
  }
  __device__ void shrink(const float (&factors)[2], Fragment<kHeadDim / 8>& sums) const {
    if (__any_sync(~0u, factors[0] != 1 || factors[1] != 1)) scale_rows(sums, factors);
  }
  __device__ static void round(const Fragment<8>& scores, Weights& weights) {
    round_to_e4m3(scores, 1, weights);
  }
  __device__ Fragment<kHeadDim / 8>& products(Fragment<kHeadDim / 8>& sums) {
    if constexpr (kPromotes) {
      return of_tile;
    } else {
      return sums;
    }
  }
  __device__ void promote(Fragment<kHeadDim / 8>& sums) {
    if constexpr (kPromotes) {
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[n][i] += of_tile[n][i];
      }
    }
  }
  __device__ static void add_product(const Weights& weights, const unsigned char* values,
                                     Fragment<kHeadDim / 8>& sums) {
    const std::uint64_t b = descriptor_of(values, 0, true);
#pragma unroll
    for (int k = 0; k < kMmaTile / 32; ++k) {
      wgmma<kType, kHeadDim>(accumulators(sums), weights[k], advance(b, k * 32),
                             kPromotes && k == 0 ? WgmmaScale::kOverwrite : WgmmaScale::kAdd);
    }
  }
  __device__ void write(const TilePair& at, int warp, Fragment<kHeadDim / 8>& sums,
                        const OnlineSoftmax& softmax, unsigned char* /*stage*/) {
    write_fp8_queries<kHeadDim>(call, at, at.first_query + warp * kWarpRows, unit * 0x1p-8f, sums,
                                softmax, lane_index_here());
    unit = 0;
  }
};

#else  // what the host's code names, which nvcc reads for every architecture

template <int kHeadDim, class Half, Extras kExtras>
struct Halves : HalfTiles<kHeadDim> {
  using Call = HalfCall;
};
template <int kHeadDim>
struct Fp8 : Fp8Tiles<kHeadDim> {
  using Call = Fp8Call;
};

#endif

}  // namespace serrate
