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
  static constexpr bool kAddsInParts = false;
  using Weights = LeftSide;

  const Call& call;

  __device__ void begin(float /*scale_of_queries*/) {}
  /// Products of a warp's queries and a tile of keys become weights.
  __device__ void weigh(const TilePair& at, const LaneTile& tile, float2 /*scales*/,
                        Fragment<8>& scores, OnlineSoftmax& softmax, float (&factors)[2]) {
    serrate::weigh<kExtras, 8>(call.attention, at, tile, scores, softmax, factors);
  }
  __device__ void shrink(const float (&factors)[2], Fragment<kHeadDim / 8>& sums) const {
    if (is_softmax(call.attention)) scale_rows(sums, factors);
  }
  __device__ void round(const Fragment<8>& scores, float2 /*scales*/, Weights& weights) const {
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

/// e4m3 with scales of 64 rows. Weights are rounded times 2^8: the largest, 1, stays what it is.
template <int kHeadDim>
struct Fp8 : Fp8Tiles<kHeadDim> {
  using Call = Fp8Call;
  static constexpr WgmmaType kType = WgmmaType::kE4m3;
  /// wgmma's sums have 13 bits: what 64 keys add is scaled and added in float32. At head_dim 256
  /// there are registers for 64 columns of it at a time.
  static constexpr bool kAddsInParts = kHeadDim > 128;
  using Weights = std::uint32_t[kMmaTile / wgmma_depth(kType)][4];

  const Call& call;
  float score_scale = 0, value_scale = 0;  // the latter of the tile that was rounded last
  Fragment<kAddsInParts ? 1 : kHeadDim / 8> of_tile = {};

  __device__ void begin(float scale_of_queries) {
    score_scale = scale_of_queries * call.attention.scale * kLog2e;
  }
  /// `scales` of the tile's keys and values.
  __device__ void weigh(const TilePair& at, const LaneTile& tile, float2 scales,
                        Fragment<8>& scores, OnlineSoftmax& softmax, float (&factors)[2]) {
    const unsigned visible = visible_pairs<Extras::kNone, 8>(call.attention, at, tile);
    const float scale = make_positive<8>(score_scale * scales.x, scores);
    hide<8>(tile, visible, -INFINITY, scores);
    // Weights of more than 1 would be too large for e4m3.
    online_softmax<8, 0>(scores, scale, softmax, factors, kWeightExponent, 1 / kWeightScale);
  }
  __device__ void shrink(const float (&factors)[2], Fragment<kHeadDim / 8>& sums) const {
    scale_rows(sums, factors);
  }
  __device__ void round(const Fragment<8>& scores, float2 scales, Weights& weights) {
    round_to_e4m3(scores, 1, weights);
    value_scale = scales.y / kWeightScale;
  }
  __device__ Fragment<kHeadDim / 8>& products(Fragment<kHeadDim / 8>& /*sums*/) { return of_tile; }
  __device__ void promote(Fragment<kHeadDim / 8>& sums) { add_part(0, of_tile, sums); }
  /// Issues products = weights times 64 values in the columns of one part.
  template <int kBlocks>
  __device__ static void add_product(const Weights& weights, const unsigned char* values,
                                     Fragment<kBlocks>& products, int part = 0) {
    constexpr int kPartBytes = 8 * kBlocks * kMmaTile;
    const std::uint64_t b = descriptor_of(values, 0, true);
#pragma unroll
    for (int k = 0; k < kMmaTile / 32; ++k) {
      wgmma<kType, 8 * kBlocks>(accumulators(products), weights[k],
                                advance(b, part * kPartBytes + k * 32),
                                k == 0 ? WgmmaScale::kOverwrite : WgmmaScale::kAdd);
    }
  }
  /// sums += those, scaled
  template <int kBlocks>
  __device__ void add_part(int part, const Fragment<kBlocks>& products,
                           Fragment<kHeadDim / 8>& sums) const {
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& sum = sums[part * kBlocks + n][i];
        sum = fmaf(value_scale, products[n][i], sum);
      }
    }
  }
  __device__ void write(const TilePair& at, int warp, Fragment<kHeadDim / 8>& sums,
                        const OnlineSoftmax& softmax, unsigned char* /*stage*/) {
    write_fp8_queries<kHeadDim>(call, at, at.first_query + warp * kWarpRows, sums, softmax,
                                lane_index_here());
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
