// Philox on Highway vectors. Include after hwy/highway.h in a file that foreach_target.h compiles
// once per target.
#if defined(SERRATE_KERNELS_SIMD_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_SIMD_PHILOX_INL_H_
#undef SERRATE_KERNELS_SIMD_PHILOX_INL_H_
#else
#define SERRATE_KERNELS_SIMD_PHILOX_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/philox_draw.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Words = hn::ScalableTag<std::uint32_t>;
inline constexpr Words kWords;

#if HWY_TARGET == HWY_SCALAR

// Vectors of one lane: the words of four columns one after the other.
inline constexpr std::int64_t kWordsAtOnce = 4;

HWY_INLINE void draw_words(const PhiloxDraw& draw, std::uint64_t row, std::int64_t column,
                           std::uint32_t* words) {
  const auto four =
      philox4x32({static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32),
                  static_cast<std::uint32_t>(column / 4), draw.site},
                 draw.key);
  std::copy(four.begin(), four.end(), words);
}

#else

using Wide = hn::ScalableTag<std::uint64_t>;
inline constexpr Wide kWide;
using WideVector = hn::Vec<Wide>;

HWY_INLINE WideVector multiply_low(WideVector a, WideVector b) {
  const hn::Repartition<std::uint32_t, Wide> words;
  return hn::MulEven(hn::BitCast(words, a), hn::BitCast(words, b));
}

/// philox4x32 in place: one counter a lane, each of its 32-bit words in the low half of 64 bits,
/// as the multiplier takes it; the high halves are whatever is left there.
HWY_INLINE void philox(const PhiloxDraw& draw, WideVector& c0, WideVector& c1, WideVector& c2,
                       WideVector& c3) {
  for (const auto& [k0, k1] : draw.round_keys) {
    const WideVector a = multiply_low(hn::Set(kWide, kPhiloxFactors[0]), c0);
    const WideVector b = multiply_low(hn::Set(kWide, kPhiloxFactors[1]), c2);
    c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(b), c1), hn::Set(kWide, k0));
    c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(a), c3), hn::Set(kWide, k1));
    c1 = b;
    c3 = a;
  }
}

inline constexpr std::int64_t kWordsAtOnce = 4 * hn::MaxLanes(kWide);

/// The words of kWordsAtOnce columns of a row, from `column` on, a multiple of 4. A lane is four
/// columns. Lanes are numbered so that interleaving the words inside 128-bit blocks, which is
/// cheap, puts the columns in order.
HWY_INLINE void draw_words(const PhiloxDraw& draw, std::uint64_t row, std::int64_t column,
                           std::uint32_t* words) {
  constexpr auto kBlocks = static_cast<std::int64_t>(hn::MaxLanes(kWide) / 2);
  const WideVector lane = hn::Iota(kWide, 0);
  const WideVector is_odd = hn::And(lane, hn::Set(kWide, 1));
  const WideVector lane_block =
      hn::IfThenElse(hn::Eq(is_odd, hn::Zero(kWide)), hn::ShiftRight<1>(lane),
                     hn::Add(hn::ShiftRight<1>(lane), hn::Set(kWide, kBlocks)));
  WideVector c0 = hn::Set(kWide, row), c1 = hn::Set(kWide, row >> 32);
  WideVector c2 = hn::Add(lane_block, hn::Set(kWide, static_cast<std::uint64_t>(column / 4)));
  WideVector c3 = hn::Set(kWide, draw.site);
  philox(draw, c0, c1, c2, c3);
  const auto pair = [](WideVector low, WideVector high) HWY_ATTR {
    return hn::BitCast(
        kWide, hn::OddEven(hn::BitCast(kWords, hn::ShiftLeft<32>(high)), hn::BitCast(kWords, low)));
  };
  const WideVector c01 = pair(c0, c1), c23 = pair(c2, c3);
  hn::StoreU(hn::BitCast(kWords, hn::InterleaveLower(kWide, c01, c23)), kWords, words);
  hn::StoreU(hn::BitCast(kWords, hn::InterleaveUpper(kWide, c01, c23)), kWords,
             words + kWordsAtOnce / 2);
}

#endif

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_SIMD_PHILOX_INL_H_
