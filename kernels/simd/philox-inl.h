// Philox on Highway vectors. Include after hwy/highway.h in a file that foreach_target.h compiles
// once per target.
#if defined(SERRATE_KERNELS_SIMD_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_SIMD_PHILOX_INL_H_
#undef SERRATE_KERNELS_SIMD_PHILOX_INL_H_
#else
#define SERRATE_KERNELS_SIMD_PHILOX_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/dense/dropout_draw.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR

using Wide = hn::ScalableTag<std::uint64_t>;
inline constexpr Wide kWide;
using WideVector = hn::Vec<Wide>;

HWY_INLINE WideVector multiply_low(WideVector a, WideVector b) {
  const hn::Repartition<std::uint32_t, Wide> words;
  return hn::MulEven(hn::BitCast(words, a), hn::BitCast(words, b));
}

/// philox4x32 in place: one counter a lane, each of its 32-bit words in the low half of 64 bits,
/// as the multiplier takes it; the high halves are whatever is left there.
HWY_INLINE void philox(const DropoutDraw& draw, WideVector& c0, WideVector& c1, WideVector& c2,
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

#endif

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_SIMD_PHILOX_INL_H_
