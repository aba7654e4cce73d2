#pragma once

// A 16 bit type of CUDA's headers, and the pair of it: what bfloat16 and half have in common. Names
// that differ between the two are in include/cuda_bf16.h and include/cuda_fp16.h.
#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <type_traits>

#include "tests/support/simt/small_floats.h"

namespace simt {

/// How the values of a format become float and the reverse.
template <typename Format>
struct Convert;
template <>
struct Convert<Bfloat16Format> {
  static float to_float(unsigned short bits) { return bfloat16_to_float(bits); }
  static unsigned short from_float(float value) { return float_to_bfloat16(value); }
};
template <>
struct Convert<HalfFormat> {
  static float to_float(unsigned short bits) { return half_to_float(bits); }
  static unsigned short from_float(float value) { return float_to_half(value); }
};

template <typename Format>
struct SmallFloatRaw {
  unsigned short x;
};
template <typename Format>
struct alignas(4) SmallFloatRaw2 {
  unsigned short x, y;
};

/// Its functions are friends, so that they take what converts to it, as CUDA's do. Arithmetic is
/// rounded once: double holds sums and products of two exactly enough.
template <typename Format>
struct alignas(2) SmallFloat {
  unsigned short __x;

  using Raw = SmallFloatRaw<Format>;

  SmallFloat() = default;
  SmallFloat(Raw raw) : __x(raw.x) {}
  SmallFloat(float value) : __x(Convert<Format>::from_float(value)) {}
  SmallFloat(double value) : __x(static_cast<unsigned short>(to_format<Format>(value))) {}
  template <typename Integer>
    requires std::is_integral_v<Integer>
  SmallFloat(Integer value)  // those beyond 2^53 are rounded twice
      : SmallFloat(static_cast<double>(value)) {}
  static SmallFloat rounded(float value, Rounding rounding) {
    return of_bits(to_format<Format>(value, rounding));
  }
  static SmallFloat of_bits(std::uint32_t bits) { return Raw{static_cast<unsigned short>(bits)}; }

  operator float() const { return Convert<Format>::to_float(__x); }
  operator Raw() const { return {__x}; }
  double wide() const { return static_cast<double>(float(*this)); }
  SmallFloat& operator=(float value) { return *this = SmallFloat(value); }
  SmallFloat& operator=(double value) { return *this = SmallFloat(value); }

  friend SmallFloat __hadd(SmallFloat a, SmallFloat b) { return a.wide() + b.wide(); }
  friend SmallFloat __hsub(SmallFloat a, SmallFloat b) { return a.wide() - b.wide(); }
  friend SmallFloat __hmul(SmallFloat a, SmallFloat b) { return a.wide() * b.wide(); }
  friend SmallFloat __hdiv(SmallFloat a, SmallFloat b) { return a.wide() / b.wide(); }
  friend SmallFloat operator+(const SmallFloat& a, const SmallFloat& b) { return __hadd(a, b); }
  friend SmallFloat operator-(const SmallFloat& a, const SmallFloat& b) { return __hsub(a, b); }
  friend SmallFloat operator*(const SmallFloat& a, const SmallFloat& b) { return __hmul(a, b); }
  friend SmallFloat operator/(const SmallFloat& a, const SmallFloat& b) { return __hdiv(a, b); }
  friend SmallFloat& operator+=(SmallFloat& a, const SmallFloat& b) { return a = __hadd(a, b); }
  friend SmallFloat& operator-=(SmallFloat& a, const SmallFloat& b) { return a = __hsub(a, b); }
  friend SmallFloat& operator*=(SmallFloat& a, const SmallFloat& b) { return a = __hmul(a, b); }
  friend SmallFloat& operator/=(SmallFloat& a, const SmallFloat& b) { return a = __hdiv(a, b); }
  friend SmallFloat __hfma(SmallFloat a, SmallFloat b, SmallFloat c) {
    return std::fma(a.wide(), b.wide(), c.wide());
  }
  friend SmallFloat __hneg(SmallFloat a) { return of_bits(a.__x ^ 0x8000u); }
  friend SmallFloat operator-(const SmallFloat& a) { return __hneg(a); }
  friend SmallFloat __habs(SmallFloat a) { return of_bits(a.__x & 0x7FFFu); }
  friend bool __hisnan(SmallFloat a) { return std::isnan(float(a)); }
  friend int __hisinf(SmallFloat a) { return std::isinf(float(a)) ? (float(a) < 0 ? -1 : 1) : 0; }
  // A number and a NaN give the number; -0 is below +0.
  friend SmallFloat __hmax(SmallFloat a, SmallFloat b) {
    if (__hisnan(a) || __hisnan(b)) return __hisnan(a) ? b : a;
    if (float(a) == float(b)) return a.__x & 0x8000 ? b : a;
    return float(a) > float(b) ? a : b;
  }
  friend SmallFloat __hmin(SmallFloat a, SmallFloat b) {
    return __hneg(__hmax(__hneg(a), __hneg(b)));
  }

  friend bool __heq(SmallFloat a, SmallFloat b) { return float(a) == float(b); }
  friend bool __hne(SmallFloat a, SmallFloat b) { return float(a) != float(b); }
  friend bool __hlt(SmallFloat a, SmallFloat b) { return float(a) < float(b); }
  friend bool __hle(SmallFloat a, SmallFloat b) { return float(a) <= float(b); }
  friend bool __hgt(SmallFloat a, SmallFloat b) { return float(a) > float(b); }
  friend bool __hge(SmallFloat a, SmallFloat b) { return float(a) >= float(b); }
  friend bool operator==(const SmallFloat& a, const SmallFloat& b) { return __heq(a, b); }
  friend bool operator!=(const SmallFloat& a, const SmallFloat& b) { return __hne(a, b); }
  friend bool operator<(const SmallFloat& a, const SmallFloat& b) { return __hlt(a, b); }
  friend bool operator<=(const SmallFloat& a, const SmallFloat& b) { return __hle(a, b); }
  friend bool operator>(const SmallFloat& a, const SmallFloat& b) { return __hgt(a, b); }
  friend bool operator>=(const SmallFloat& a, const SmallFloat& b) { return __hge(a, b); }

  friend SmallFloat hexp(SmallFloat a) { return std::exp(a.wide()); }
  friend SmallFloat hexp2(SmallFloat a) { return std::exp2(a.wide()); }
  friend SmallFloat hlog(SmallFloat a) { return std::log(a.wide()); }
  friend SmallFloat hlog2(SmallFloat a) { return std::log2(a.wide()); }
  friend SmallFloat hsqrt(SmallFloat a) { return std::sqrt(a.wide()); }
  friend SmallFloat hrsqrt(SmallFloat a) { return 1 / std::sqrt(a.wide()); }
  friend SmallFloat hrcp(SmallFloat a) { return 1 / a.wide(); }
  friend SmallFloat htanh(SmallFloat a) { return std::tanh(a.wide()); }
  friend SmallFloat hfloor(SmallFloat a) { return std::floor(a.wide()); }
  friend SmallFloat hceil(SmallFloat a) { return std::ceil(a.wide()); }
  friend SmallFloat hrint(SmallFloat a) { return std::nearbyint(a.wide()); }
};

/// The same half by half.
template <typename Format>
struct alignas(4) SmallFloat2 {
  using One = SmallFloat<Format>;
  using Raw = SmallFloatRaw2<Format>;

  One x, y;

  SmallFloat2() = default;
  SmallFloat2(One x_, One y_) : x(x_), y(y_) {}
  SmallFloat2(Raw raw) : x(One::of_bits(raw.x)), y(One::of_bits(raw.y)) {}
  operator Raw() const { return {x.__x, y.__x}; }

  friend float __low2float(SmallFloat2 a) { return a.x; }
  friend float __high2float(SmallFloat2 a) { return a.y; }
  friend SmallFloat2 __lowhigh2highlow(SmallFloat2 a) { return {a.y, a.x}; }

  friend SmallFloat2 __hadd2(SmallFloat2 a, SmallFloat2 b) { return {a.x + b.x, a.y + b.y}; }
  friend SmallFloat2 __hsub2(SmallFloat2 a, SmallFloat2 b) { return {a.x - b.x, a.y - b.y}; }
  friend SmallFloat2 __hmul2(SmallFloat2 a, SmallFloat2 b) { return {a.x * b.x, a.y * b.y}; }
  friend SmallFloat2 __h2div(SmallFloat2 a, SmallFloat2 b) { return {a.x / b.x, a.y / b.y}; }
  friend SmallFloat2 operator+(const SmallFloat2& a, const SmallFloat2& b) { return __hadd2(a, b); }
  friend SmallFloat2 operator-(const SmallFloat2& a, const SmallFloat2& b) { return __hsub2(a, b); }
  friend SmallFloat2 operator*(const SmallFloat2& a, const SmallFloat2& b) { return __hmul2(a, b); }
  friend SmallFloat2 operator/(const SmallFloat2& a, const SmallFloat2& b) { return __h2div(a, b); }
  friend SmallFloat2& operator+=(SmallFloat2& a, const SmallFloat2& b) { return a = a + b; }
  friend SmallFloat2& operator-=(SmallFloat2& a, const SmallFloat2& b) { return a = a - b; }
  friend SmallFloat2& operator*=(SmallFloat2& a, const SmallFloat2& b) { return a = a * b; }
  friend SmallFloat2& operator/=(SmallFloat2& a, const SmallFloat2& b) { return a = a / b; }
  friend SmallFloat2 __hfma2(SmallFloat2 a, SmallFloat2 b, SmallFloat2 c) {
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
  }
  friend SmallFloat2 __hneg2(SmallFloat2 a) { return {-a.x, -a.y}; }
  friend SmallFloat2 __habs2(SmallFloat2 a) { return {__habs(a.x), __habs(a.y)}; }
  friend SmallFloat2 __hmax2(SmallFloat2 a, SmallFloat2 b) {
    return {__hmax(a.x, b.x), __hmax(a.y, b.y)};
  }
  friend SmallFloat2 __hmin2(SmallFloat2 a, SmallFloat2 b) {
    return {__hmin(a.x, b.x), __hmin(a.y, b.y)};
  }
  friend SmallFloat2 h2exp(SmallFloat2 a) { return {hexp(a.x), hexp(a.y)}; }
  friend SmallFloat2 h2exp2(SmallFloat2 a) { return {hexp2(a.x), hexp2(a.y)}; }
  friend SmallFloat2 h2log(SmallFloat2 a) { return {hlog(a.x), hlog(a.y)}; }
  friend SmallFloat2 h2log2(SmallFloat2 a) { return {hlog2(a.x), hlog2(a.y)}; }
  friend SmallFloat2 h2sqrt(SmallFloat2 a) { return {hsqrt(a.x), hsqrt(a.y)}; }
  friend SmallFloat2 h2tanh(SmallFloat2 a) { return {htanh(a.x), htanh(a.y)}; }
  friend SmallFloat2 h2floor(SmallFloat2 a) { return {hfloor(a.x), hfloor(a.y)}; }
  friend SmallFloat2 h2ceil(SmallFloat2 a) { return {hceil(a.x), hceil(a.y)}; }
  friend SmallFloat2 h2rint(SmallFloat2 a) { return {hrint(a.x), hrint(a.y)}; }

  // A pair is added half by half, in one word that others may not split.
  friend __forceinline__ SmallFloat2 atomicAdd(SmallFloat2* address, SmallFloat2 value) {
    auto* const word = reinterpret_cast<unsigned*>(address);
    unsigned before = ::atomicCAS(word, 0u, 0u);
    while (true) {
      const SmallFloat2 sum = std::bit_cast<SmallFloat2>(before) + value;
      const unsigned seen = ::atomicCAS(word, before, std::bit_cast<unsigned>(sum));
      if (seen == before) return std::bit_cast<SmallFloat2>(before);
      before = seen;
    }
  }
};

}  // namespace simt
