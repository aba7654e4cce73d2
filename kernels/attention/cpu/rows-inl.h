// Rows of a head between how they are stored and float32. Include in a file that foreach_target.h
// compiles once per target.
#if defined(SERRATE_KERNELS_ATTENTION_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ATTENTION_ROWS_INL_H_
#undef SERRATE_KERNELS_ATTENTION_ROWS_INL_H_
#else
#define SERRATE_KERNELS_ATTENTION_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/attention/view.h"
#include "kernels/simd/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
Tile<T> rows_of(const HeadsView<T>& view, std::int64_t token, std::int64_t head) {
  return {view.at(token, head), view.token_stride};
}

inline void widen(const BFloat16* from, std::int64_t count, float* to) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> words;
  const hn::Rebind<std::uint16_t, decltype(d)> halves;
  const auto* bits = reinterpret_cast<const std::uint16_t*>(from);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto wide = hn::PromoteTo(words, hn::LoadU(halves, bits + i));
    hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(wide)), d, to + i);
  }
  for (; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

// As BFloat16's constructor rounds.
inline void narrow(const float* from, std::int64_t count, BFloat16* to) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> words;
  const hn::RebindToSigned<decltype(d)> integers;
  const hn::Rebind<std::uint16_t, decltype(d)> halves;
  auto* bits = reinterpret_cast<std::uint16_t*>(to);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto x = hn::LoadU(d, from + i);
    const auto word = hn::BitCast(words, x);
    const auto upper = hn::ShiftRight<16>(word);
    const auto is_odd = hn::And(upper, hn::Set(words, 1));
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(word, hn::Set(words, 0x7FFF)), is_odd));
    const auto nan = hn::Or(upper, hn::Set(words, 0x40));
    const auto result = hn::IfThenElse(hn::RebindMask(words, hn::Eq(x, x)), rounded, nan);
    hn::StoreU(hn::DemoteTo(halves, hn::BitCast(integers, result)), halves, bits + i);
  }
  for (; i < count; ++i) to[i] = BFloat16(from[i]);
}

enum class RowEnds { kAsTheyAre, kWholeVectors };

/// Rows as floats, that end with 0s up to whole vectors if asked for: where they are if they can
/// be, else a copy.
inline Tile<const float> load_rows(const InputHeads& from, std::int64_t token, std::int64_t head,
                                   std::int64_t rows, std::int64_t columns, RowEnds ends,
                                   float* copy) {
  if (from.type == DataType::kFloat32) {
    const Tile<const float> tile = rows_of(view_as<float>(from), token, head);
    return ends == RowEnds::kAsTheyAre ? tile : whole_vectors(tile, rows, columns, copy);
  }
  const Tile<float> to{copy, round_up_to_lanes(columns)};
  for (std::int64_t r = 0; r < rows; ++r) {
    widen(view_as<BFloat16>(from).at(token + r, head), columns, to.row(r));
    std::fill(to.row(r) + columns, to.row(r + 1), 0.0f);
  }
  return to;
}

inline void store_rows(Tile<const float> from, std::int64_t rows, std::int64_t columns,
                       const OutputHeads& to, std::int64_t token, std::int64_t head) {
  if (to.type == DataType::kFloat32) {
    copy_rows(from, rows, columns, rows_of(view_as<float>(to), token, head));
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    narrow(from.row(r), columns, view_as<BFloat16>(to).at(token + r, head));
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_ROWS_INL_H_
