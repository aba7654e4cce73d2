// Dropout of tiles of weights. Include in a file that foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_ATTENTION_DROPOUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ATTENTION_DROPOUT_INL_H_
#undef SERRATE_KERNELS_ATTENTION_DROPOUT_INL_H_
#else
#define SERRATE_KERNELS_ATTENTION_DROPOUT_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/attention/cpu/scratch.h"
#include "kernels/attention/cpu/tile-inl.h"
#include "kernels/dense/dropout_draw.h"
#include "kernels/simd/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A bit for each of eight queries that keep keys [key, key + 4), a byte for each of those.
HWY_INLINE void draw_kept(const DropoutDraw& draw, const std::uint64_t* token_ids,
                          std::uint64_t key, std::uint8_t* kept) {
  std::fill_n(kept, 4, std::uint8_t{0});
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 8; ++i) {
    const auto words = philox4x32(
        {static_cast<std::uint32_t>(token_ids[i]), static_cast<std::uint32_t>(token_ids[i] >> 32),
         static_cast<std::uint32_t>(key / 4), draw.site},
        draw.key);
    for (int j = 0; j < 4; ++j) {
      kept[j] |= static_cast<std::uint8_t>((words[j] >= draw.threshold) << i);
    }
  }
#else
  constexpr int kWideLanes = hn::MaxLanes(kWide);
  static_assert(kWideLanes <= 8);
  const auto threshold = hn::Set(kWide, draw.threshold);
  const auto low_half = hn::Set(kWide, 0xFFFFFFFFu);
  for (int i = 0; i < 8; i += kWideLanes) {
    auto c0 = hn::LoadU(kWide, token_ids + i);
    auto c1 = hn::ShiftRight<32>(c0);
    auto c2 = hn::Set(kWide, key / 4), c3 = hn::Set(kWide, draw.site);
    philox(draw, c0, c1, c2, c3);
    const WideVector words[4] = {c0, c1, c2, c3};
    for (int j = 0; j < 4; ++j) {
      std::uint8_t dropped[8] = {};
      hn::StoreMaskBits(kWide, hn::Lt(hn::And(words[j], low_half), threshold), dropped);
      kept[j] |= static_cast<std::uint8_t>((~dropped[0] & ((1 << kWideLanes) - 1)) << i);
    }
  }
#endif
}

/// The bits of the keys of a tile, the first of which is `first_key` of its sequence.
inline void draw_kept(DropoutDraw draw, const std::int64_t* token_ids, std::int64_t head,
                      std::int64_t first_key, const TileMask& mask, KeptBits* kept) {
  draw.site += static_cast<std::uint32_t>(head) << 16;
  for (std::int64_t q = 0; q < mask.queries; q += 8) {
    std::uint64_t ids[8];
    for (std::int64_t i = 0; i < 8; ++i) {
      ids[i] = static_cast<std::uint64_t>(token_ids[std::min(q + i, mask.queries - 1)]);
    }
    const TileRange read = mask.read[q / kMaskBlock];
    for (std::int64_t r = read.begin / 4 * 4; r < read.end; r += 4) {
      std::uint8_t bytes[4];
      draw_kept(draw, ids, static_cast<std::uint64_t>(first_key + r), bytes);
      for (std::int64_t j = 0; j < 4; ++j) kept[r + j][q / 8] = bytes[j];
    }
  }
}

/// to = from * scale where kept, else 0; may be in place.
inline void drop(const TileMask& mask, const KeptBits* kept, float scale, Tile<const float> from,
                 Tile<float> to) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, scale);
  for (std::int64_t q = 0; q < mask.queries; q += kLanes) {
    const TileRange read = mask.read[q / kMaskBlock];
    for (std::int64_t r = read.begin; r < read.end; ++r) {
      const auto x = hn::Mul(factor, hn::Load(d, from.row(r) + q));
      hn::Store(hn::IfThenElseZero(visible_lanes(d, kept[r], q), x), d, to.row(r) + q);
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_DROPOUT_INL_H_
