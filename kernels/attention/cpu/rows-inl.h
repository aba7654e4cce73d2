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
#include "kernels/simd/row_ops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
Tile<T> rows_of(const HeadsView<T>& view, std::int64_t token, std::int64_t head) {
  return {view.at(token, head), view.token_stride};
}

template <class Half>
void widen(const Half* from, std::int64_t count, float* to) {
  const hn::ScalableTag<float> d;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) hn::StoreU(load_values(d, from + i), d, to + i);
  for (; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

// As the constructors of BFloat16 and Float16 round.
template <class Words, class V>
HWY_INLINE hn::Vec<Words> rounded(Words words, V x, BFloat16) {
  const auto word = hn::BitCast(words, x);
  const auto upper = hn::ShiftRight<16>(word);
  const auto is_odd = hn::And(upper, hn::Set(words, 1));
  const auto nearest = hn::ShiftRight<16>(hn::Add(hn::Add(word, hn::Set(words, 0x7FFF)), is_odd));
  const auto nan = hn::Or(upper, hn::Set(words, 0x40));
  return hn::IfThenElse(hn::RebindMask(words, hn::Eq(x, x)), nearest, nan);
}
template <class Words, class V>
HWY_INLINE hn::Vec<Words> rounded(Words words, V x, Float16) {
  const hn::RebindToFloat<Words> d;
  const auto size = hn::Abs(x);
  const auto below = [&](float bound) HWY_ATTR {
    return hn::RebindMask(words, hn::Lt(size, hn::Set(d, bound)));
  };
  const auto subnormal =
      hn::And(hn::BitCast(words, hn::Add(size, hn::Set(d, 0.5f))), hn::Set(words, 0xFFFF));
  const auto rebiased = hn::Sub(hn::BitCast(words, size), hn::Set(words, 112u << 23));
  const auto is_odd = hn::And(hn::ShiftRight<13>(rebiased), hn::Set(words, 1));
  const auto normal = hn::ShiftRight<13>(hn::Add(hn::Add(rebiased, hn::Set(words, 0xFFF)), is_odd));
  const auto special = hn::IfThenElse(hn::RebindMask(words, hn::Eq(x, x)), hn::Set(words, 0x7C00),
                                      hn::Set(words, 0x7E00));
  const auto finite = hn::IfThenElse(below(0x1p-14f), subnormal, normal);
  const auto sign = hn::And(hn::ShiftRight<16>(hn::BitCast(words, x)), hn::Set(words, 0x8000));
  return hn::Or(sign, hn::IfThenElse(below(65520), finite, special));
}

template <class Half>
void narrow(const float* from, std::int64_t count, Half* to) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> words;
  const hn::RebindToSigned<decltype(d)> integers;
  const hn::Rebind<std::uint16_t, decltype(d)> halves;
  auto* bits = reinterpret_cast<std::uint16_t*>(to);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto result = rounded(words, hn::LoadU(d, from + i), Half());
    hn::StoreU(hn::DemoteTo(halves, hn::BitCast(integers, result)), halves, bits + i);
  }
  for (; i < count; ++i) to[i] = Half(from[i]);
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
    if (from.type == DataType::kFloat16) {
      widen(view_as<Float16>(from).at(token + r, head), columns, to.row(r));
    } else {
      widen(view_as<BFloat16>(from).at(token + r, head), columns, to.row(r));
    }
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
    if (to.type == DataType::kFloat16) {
      narrow(from.row(r), columns, view_as<Float16>(to).at(token + r, head));
    } else {
      narrow(from.row(r), columns, view_as<BFloat16>(to).at(token + r, head));
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ATTENTION_ROWS_INL_H_
