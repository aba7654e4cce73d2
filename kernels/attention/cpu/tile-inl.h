// What the forward and the backward of attention share: tiles of scores that hold a query in
// every lane and a key in every row, so that softmax needs no sum across lanes. Include in a file
// that foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ATTENTION_TILE_INL_H_
#undef SERRATE_KERNELS_ATTENTION_TILE_INL_H_
#else
#define SERRATE_KERNELS_ATTENTION_TILE_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numbers>

#include "hwy/highway.h"
#include "kernels/attention/cpu/tile_mask.h"
#include "kernels/attention/view.h"
#include "kernels/simd/gemm-inl.h"
#include "kernels/simd/math-inl.h"
#include "kernels/simd/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr float kLog2e = std::numbers::log2e_v<float>;
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

static_assert(TileMask::kBlock == kBlockRows && kMaskBlock % kLanes == 0);

/// What a block of keys needs of a product that yields scores and sums over `depth` columns.
inline auto scores_extent(const TileMask& mask, std::int64_t depth) {
  return [&mask, depth](std::int64_t key, std::int64_t) {
    const TileRange queries = mask.queries_of[key / kBlockRows];
    return Extent{queries.begin / kLanes * kLanes, 0, depth, round_up_to_lanes(queries.end)};
  };
}
/// What a block of queries needs of a product that sums over keys.
inline auto keys_extent(const TileMask& mask) {
  return [&mask](std::int64_t query, std::int64_t) {
    const TileRange keys = mask.keys_of[query / kBlockRows];
    return Extent{0, keys.begin, keys.end};
  };
}
/// What a block of keys needs of a product that sums over queries.
inline auto queries_extent(const TileMask& mask) {
  return [&mask](std::int64_t key, std::int64_t) {
    const TileRange queries = mask.queries_of[key / kBlockRows];
    return Extent{0, queries.begin, queries.end};
  };
}

/// What scores are multiplied by besides their scale: softmax uses exp2.
inline float score_factor(AttentionActivation activation) {
  return activation == AttentionActivation::kSoftmax ? kLog2e : 1;
}

/// x / (1 + e^-x) and its derivative.
struct SiluValues {
  hn::Vec<hn::ScalableTag<float>> value, derivative;
};
HWY_INLINE SiluValues silu(hn::ScalableTag<float> d, hn::Vec<hn::ScalableTag<float>> x) {
  const auto one = hn::Set(d, 1);
  const auto exponent = hn::Min(hn::Mul(x, hn::Set(d, -kLog2e)), hn::Set(d, 126));
  const auto sigmoid = hn::Div(one, hn::Add(one, Exp2(d, exponent)));
  const auto value = hn::Mul(x, sigmoid);
  return {value, hn::MulAdd(value, hn::Sub(one, sigmoid), sigmoid)};
}

// Whether the queries from q on see the key of a row of bits.
HWY_INLINE auto visible_lanes(hn::ScalableTag<float> d, const std::uint8_t* bits, std::int64_t q) {
  if constexpr (kLanes >= 8) {
    return hn::LoadMaskBits(d, bits + q / 8);
  } else {
    const std::uint8_t shifted[8] = {static_cast<std::uint8_t>(bits[q / 8] >> (q % 8))};
    return hn::LoadMaskBits(d, shifted);
  }
}

/// Writes `hidden` over the invisible values of a tile that products read.
inline void hide(const TileMask& mask, float hidden, Tile<float> tile) {
  const hn::ScalableTag<float> d;
  const auto hidden_vector = hn::Set(d, hidden);
  for (std::int64_t q = 0; q < mask.queries; q += kLanes) {
    const TileRange read = mask.read[q / kMaskBlock];
    if (mask.form == TileMask::Form::kBits) {
      for (std::int64_t r = read.begin; r < read.end; ++r) {
        float* row = tile.row(r) + q;
        hn::Store(
            hn::IfThenElse(visible_lanes(d, mask.bits[r], q), hn::Load(d, row), hidden_vector), d,
            row);
      }
      continue;
    }
    const auto keys_of = [&](std::int64_t query) {
      return std::clamp<std::int64_t>(query + mask.diagonal + 1, 0, read.end);
    };
    const std::int64_t visible_to_any = keys_of(q + kLanes - 1);
    for (std::int64_t r = keys_of(q); r < visible_to_any; ++r) {
      const auto first_lane = hn::Set(d, static_cast<float>(r - mask.diagonal - q));
      float* row = tile.row(r) + q;
      hn::Store(hn::IfThenElse(hn::Ge(hn::Iota(d, 0), first_lane), hn::Load(d, row), hidden_vector),
                d, row);
    }
    for (std::int64_t r = visible_to_any; r < read.end; ++r) {
      hn::Store(hidden_vector, d, tile.row(r) + q);
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_TILE_INL_H_
