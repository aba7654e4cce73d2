// Elementary functions on Highway vectors of float. Include after hwy/highway.h in a file that
// foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_SIMD_MATH_INL_H_
#undef SERRATE_KERNELS_SIMD_MATH_INL_H_
#else
#define SERRATE_KERNELS_SIMD_MATH_INL_H_
#endif

#include <cstdint>
#include <limits>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// NOLINTBEGIN(readability-identifier-naming): named as Highway names its functions

// Adding it to |x| < 2^22 leaves the integer nearest to x in the low bits of the sum.
inline constexpr float kRoundingMagic = 12582912.0f;  // 1.5 * 2^23

// p * 2^n for p in [0.7, 1.42] and n = rounded - kRoundingMagic, where that is a normal number; NaN
// where p is, whose bits the sum of integers makes any number.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ScaleByPowerOfTwo(D d, V p, V rounded) {
  const hn::RebindToSigned<D> di;
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, rounded));
  const V scaled = hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
  return hn::MulAdd(p, hn::Zero(d), scaled);
}

/// 2^x for x < 128, within 1.5 ulp; 0 where that is below 2^-126. NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp2(D d, V x) {
  const V magic = hn::Set(d, kRoundingMagic);
  const V rounded = hn::Add(x, magic);
  const V f = hn::Sub(x, hn::Sub(rounded, magic));
  // Relative minimax polynomial of 2^f on [-1/2, 1/2]: 3e-9 before rounding.
  V p = hn::MulAdd(hn::Set(d, 1.559467757e-4f), f, hn::Set(d, 1.340664391e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.617692975e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550310551e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402265278e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931472150e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), ScaleByPowerOfTwo(d, p, rounded));
}

/// e^x, within 1.5 ulp; 0 where that is below 2^-126, infinity above the largest float. NaN stays
/// NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp(D d, V x) {
  const V magic = hn::Set(d, kRoundingMagic);
  const V rounded = hn::MulAdd(x, hn::Set(d, 1.44269504f), magic);
  const V n = hn::Sub(rounded, magic);
  // r = x - n ln 2 in two steps (Cody and Waite); the first is exact.
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  // Relative minimax polynomial of e^r on [-ln(2)/2, ln(2)/2]: 3e-9 before rounding.
  V p = hn::MulAdd(hn::Set(d, 1.406127671e-3f), r, hn::Set(d, 8.379020735e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.166477650e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.666636531e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.000000435e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const V e =
      hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.3365447f)), ScaleByPowerOfTwo(d, p, rounded));
  return hn::IfThenElse(hn::Gt(x, hn::Set(d, 88.7228394f)),
                        hn::Set(d, std::numeric_limits<float>::infinity()), e);
}

// NOLINTEND(readability-identifier-naming)
}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_SIMD_MATH_INL_H_
