#pragma once

// bfloat16 on the simulated device: the names of CUDA's cuda_bf16.h.
#include <cuda_runtime.h>

#include "tests/support/simt/small_floats.h"

struct __nv_bfloat16_raw {
  unsigned short x;
};
struct alignas(4) __nv_bfloat162_raw {
  unsigned short x, y;
};

struct alignas(2) __nv_bfloat16 {
  unsigned short __x;

  __nv_bfloat16() = default;
  __nv_bfloat16(__nv_bfloat16_raw raw) : __x(raw.x) {}
  __nv_bfloat16(float value) : __x(simt::float_to_bfloat16(value)) {}
  __nv_bfloat16(double value)
      : __x(static_cast<unsigned short>(simt::to_format<simt::Bfloat16Format>(value))) {}
  template <typename Integer>
    requires std::is_integral_v<Integer>
  __nv_bfloat16(Integer value)  // those beyond 2^53 are rounded twice
      : __nv_bfloat16(static_cast<double>(value)) {}

  operator float() const { return simt::bfloat16_to_float(__x); }
  operator __nv_bfloat16_raw() const { return {__x}; }
  __nv_bfloat16& operator=(float value) { return *this = __nv_bfloat16(value); }
  __nv_bfloat16& operator=(double value) { return *this = __nv_bfloat16(value); }
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;

  __nv_bfloat162() = default;
  __nv_bfloat162(__nv_bfloat16 x_, __nv_bfloat16 y_) : x(x_), y(y_) {}
  __nv_bfloat162(__nv_bfloat162_raw raw)
      : x(__nv_bfloat16_raw{raw.x}), y(__nv_bfloat16_raw{raw.y}) {}
  operator __nv_bfloat162_raw() const { return {x.__x, y.__x}; }
};
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

// Conversions.

#define SIMT_FROM(suffix, rounding)                                               \
  inline __nv_bfloat16 __float2bfloat16_##suffix(float value) {                   \
    return __nv_bfloat16_raw{static_cast<unsigned short>(                         \
        simt::to_format<simt::Bfloat16Format>(value, simt::Rounding::rounding))}; \
  }
SIMT_FROM(rn, kNearest)
SIMT_FROM(rz, kZero)
SIMT_FROM(rd, kDown)
SIMT_FROM(ru, kUp)
#undef SIMT_FROM
inline __nv_bfloat16 __float2bfloat16(float value) {
  return value;
}
inline __nv_bfloat16 __double2bfloat16(double value) {
  return value;
}
inline float __bfloat162float(__nv_bfloat16 value) {
  return value;
}
inline __nv_bfloat16 __int2bfloat16_rn(int value) {
  return value;
}
inline __nv_bfloat16 __uint2bfloat16_rn(unsigned value) {
  return value;
}
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {low, high};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 values) {
  return {values.x, values.y};
}
inline __nv_bfloat162 __float2bfloat162_rn(float value) {
  return {value, value};
}
inline float2 __bfloat1622float2(__nv_bfloat162 values) {
  return {values.x, values.y};
}
inline float __low2float(__nv_bfloat162 values) {
  return values.x;
}
inline float __high2float(__nv_bfloat162 values) {
  return values.y;
}
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 values) {
  return values.x;
}
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 values) {
  return values.y;
}
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) {
  return {low, high};
}
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 value) {
  return {value, value};
}
inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) {
  return {low, high};
}
inline __nv_bfloat162 __lowhigh2highlow(__nv_bfloat162 values) {
  return {values.y, values.x};
}
inline __nv_bfloat162 __lows2bfloat162(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {a.x, b.x};
}
inline __nv_bfloat162 __highs2bfloat162(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {a.y, b.y};
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) {
  return value.__x;
}
inline short __bfloat16_as_short(__nv_bfloat16 value) {
  return static_cast<short>(value.__x);
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  return __nv_bfloat16_raw{bits};
}
inline __nv_bfloat16 __short_as_bfloat16(short bits) {
  return __nv_bfloat16_raw{static_cast<unsigned short>(bits)};
}

// Arithmetic, rounded once: double holds sums and products of two exactly enough.

#define SIMT_BINARY(name, operation)                                                           \
  inline __nv_bfloat16 name(__nv_bfloat16 a, __nv_bfloat16 b) {                                \
    return static_cast<double>(float(a)) operation static_cast<double>(float(b));              \
  }                                                                                            \
  inline __nv_bfloat162 name##2(__nv_bfloat162 a, __nv_bfloat162 b) {                          \
    return {name(a.x, b.x), name(a.y, b.y)};                                                   \
  }                                                                                            \
  inline __nv_bfloat16 operator operation(const __nv_bfloat16& a, const __nv_bfloat16& b) {    \
    return name(a, b);                                                                         \
  }                                                                                            \
  inline __nv_bfloat162 operator operation(const __nv_bfloat162& a, const __nv_bfloat162& b) { \
    return name##2(a, b);                                                                      \
  }                                                                                            \
  inline __nv_bfloat16& operator operation##=(__nv_bfloat16 & a, const __nv_bfloat16 & b) {    \
    return a = name(a, b);                                                                     \
  }                                                                                            \
  inline __nv_bfloat162& operator operation##=(__nv_bfloat162 & a, const __nv_bfloat162 & b) { \
    return a = name##2(a, b);                                                                  \
  }
SIMT_BINARY(__hadd, +)
SIMT_BINARY(__hsub, -)
SIMT_BINARY(__hmul, *)
SIMT_BINARY(__hdiv, /)
#undef SIMT_BINARY
inline __nv_bfloat162 __h2div(__nv_bfloat162 a, __nv_bfloat162 b) {
  return __hdiv2(a, b);
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return std::fma(static_cast<double>(float(a)), static_cast<double>(float(b)),
                  static_cast<double>(float(c)));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
inline __nv_bfloat16 __hneg(__nv_bfloat16 a) {
  return __nv_bfloat16_raw{static_cast<unsigned short>(a.__x ^ 0x8000)};
}
inline __nv_bfloat162 __hneg2(__nv_bfloat162 a) {
  return {__hneg(a.x), __hneg(a.y)};
}
inline __nv_bfloat16 operator-(const __nv_bfloat16& a) {
  return __hneg(a);
}
inline __nv_bfloat16 __habs(__nv_bfloat16 a) {
  return __nv_bfloat16_raw{static_cast<unsigned short>(a.__x & 0x7FFF)};
}
inline __nv_bfloat162 __habs2(__nv_bfloat162 a) {
  return {__habs(a.x), __habs(a.y)};
}
inline bool __hisnan(__nv_bfloat16 a) {
  return float(a) != float(a);
}
inline int __hisinf(__nv_bfloat16 a) {
  return std::isinf(float(a)) ? (float(a) < 0 ? -1 : 1) : 0;
}
// Of a number and a NaN, the number; -0 is below +0.
inline __nv_bfloat16 __hmax(__nv_bfloat16 a, __nv_bfloat16 b) {
  if (__hisnan(a) || __hisnan(b)) return __hisnan(a) ? b : a;
  if (float(a) == float(b)) return a.__x & 0x8000 ? b : a;
  return float(a) > float(b) ? a : b;
}
inline __nv_bfloat16 __hmin(__nv_bfloat16 a, __nv_bfloat16 b) {
  if (__hisnan(a) || __hisnan(b)) return __hisnan(a) ? b : a;
  if (float(a) == float(b)) return a.__x & 0x8000 ? a : b;
  return float(a) < float(b) ? a : b;
}
inline __nv_bfloat162 __hmax2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__hmax(a.x, b.x), __hmax(a.y, b.y)};
}
inline __nv_bfloat162 __hmin2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__hmin(a.x, b.x), __hmin(a.y, b.y)};
}

#define SIMT_COMPARE(name, operation)                                              \
  inline bool name(__nv_bfloat16 a, __nv_bfloat16 b) {                             \
    return float(a) operation float(b);                                            \
  }                                                                                \
  inline bool operator operation(const __nv_bfloat16& a, const __nv_bfloat16& b) { \
    return float(a) operation float(b);                                            \
  }
SIMT_COMPARE(__heq, ==)
SIMT_COMPARE(__hne, !=)
SIMT_COMPARE(__hlt, <)
SIMT_COMPARE(__hle, <=)
SIMT_COMPARE(__hgt, >)
SIMT_COMPARE(__hge, >=)
#undef SIMT_COMPARE

#define SIMT_FUNCTION(name, function)                    \
  inline __nv_bfloat16 h##name(__nv_bfloat16 a) {        \
    return std::function(static_cast<double>(float(a))); \
  }                                                      \
  inline __nv_bfloat162 h2##name(__nv_bfloat162 a) {     \
    return {h##name(a.x), h##name(a.y)};                 \
  }
SIMT_FUNCTION(exp, exp)
SIMT_FUNCTION(exp2, exp2)
SIMT_FUNCTION(log, log)
SIMT_FUNCTION(log2, log2)
SIMT_FUNCTION(sqrt, sqrt)
SIMT_FUNCTION(tanh, tanh)
SIMT_FUNCTION(floor, floor)
SIMT_FUNCTION(ceil, ceil)
SIMT_FUNCTION(rint, nearbyint)
#undef SIMT_FUNCTION
inline __nv_bfloat16 hrsqrt(__nv_bfloat16 a) {
  return 1 / std::sqrt(static_cast<double>(float(a)));
}
inline __nv_bfloat16 hrcp(__nv_bfloat16 a) {
  return 1 / static_cast<double>(float(a));
}

// A pair is added half by half, in one word that others may not split.
__forceinline__ __nv_bfloat162 atomicAdd(__nv_bfloat162* address, __nv_bfloat162 value) {
  auto* const word = reinterpret_cast<unsigned*>(address);
  unsigned before = atomicCAS(word, 0u, 0u);
  while (true) {
    const __nv_bfloat162 sum = __hadd2(std::bit_cast<__nv_bfloat162>(before), value);
    const unsigned seen = atomicCAS(word, before, std::bit_cast<unsigned>(sum));
    if (seen == before) return std::bit_cast<__nv_bfloat162>(before);
    before = seen;
  }
}
