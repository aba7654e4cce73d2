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
#include "kernels/simd_gemm-inl.h"
#include "kernels/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr float kLog2e = std::numbers::log2e_v<float>;
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Which scores of a tile are visible: query q sees key r if r <= q + diagonal. A full mask is one
/// whose diagonal lies beyond the tile.
struct Band {
  std::int64_t keys, queries, diagonal;

  /// Query q sees the keys [0, keys_of(q)).
  std::int64_t keys_of(std::int64_t q) const {
    return std::clamp<std::int64_t>(q + diagonal + 1, 0, keys);
  }
  /// Key r is seen by the queries [first_query_of(r), queries).
  std::int64_t first_query_of(std::int64_t r) const {
    return std::clamp<std::int64_t>(r - diagonal, 0, queries);
  }
  /// The rows that products read in the vector that starts at query q: those visible to any of
  /// its queries, and where their block of rows may end.
  std::int64_t rows_read(std::int64_t q) const {
    return std::min(keys_of(q + kLanes - 1) + kBlockRows - 1, keys);
  }

  /// What a block of keys needs of a product that yields scores and sums over `depth` columns.
  auto scores_extent(std::int64_t depth) const {
    return [*this, depth](std::int64_t key, std::int64_t) {
      return Extent{first_query_of(key) / kLanes * kLanes, 0, depth};
    };
  }
  /// What a block of queries needs of a product that sums over keys.
  auto keys_extent() const {
    return [*this](std::int64_t, std::int64_t query_end) {
      return Extent{0, 0, keys_of(query_end - 1)};
    };
  }
  /// What a block of keys needs of a product that sums over queries.
  auto queries_extent() const {
    return
        [*this](std::int64_t key, std::int64_t) { return Extent{0, first_query_of(key), queries}; };
  }
};

/// How many of a sequence's keys some query before `query_end` sees.
inline std::int64_t num_visible_keys(AttentionMask mask, std::int64_t query_end,
                                     std::int64_t keys) {
  return mask == AttentionMask::kCausal ? std::min(query_end, keys) : keys;
}

inline Band band_of(AttentionMask mask, std::int64_t query, std::int64_t queries, std::int64_t key,
                    std::int64_t keys) {
  return {keys, queries, mask == AttentionMask::kCausal ? query - key : keys};
}

/// The size of the tiles that cut `count` evenly: at most `longest`, a multiple of `unit`.
inline std::int64_t even_tile(std::int64_t count, std::int64_t longest, std::int64_t unit) {
  const std::int64_t units = (count + unit - 1) / unit;
  const std::int64_t units_in_longest = longest / unit;
  const std::int64_t tiles = std::max<std::int64_t>((units - 1) / units_in_longest + 1, 1);
  return (units + tiles - 1) / tiles * unit;
}

template <typename T>
Tile<T> rows_of(const HeadsView<T>& view, std::int64_t token, std::int64_t head) {
  return {view.at(token, head), view.token_stride};
}

/// Writes -infinity over the invisible scores that are read.
inline void mask_scores(const Band& band, Tile<float> scores) {
  const hn::ScalableTag<float> d;
  const auto hidden = hn::Set(d, -kInfinity);
  for (std::int64_t q = 0; q < band.queries; q += kLanes) {
    const std::int64_t visible_to_all = band.keys_of(q);
    const std::int64_t visible_to_any = band.keys_of(q + kLanes - 1);
    for (std::int64_t r = visible_to_all; r < visible_to_any; ++r) {
      const auto first_lane = hn::Set(d, static_cast<float>(r - band.diagonal - q));
      float* row = scores.row(r) + q;
      hn::Store(hn::IfThenElse(hn::Ge(hn::Iota(d, 0), first_lane), hn::Load(d, row), hidden), d,
                row);
    }
    for (std::int64_t r = visible_to_any; r < band.rows_read(q); ++r) {
      hn::Store(hidden, d, scores.row(r) + q);
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_TILE_INL_H_
