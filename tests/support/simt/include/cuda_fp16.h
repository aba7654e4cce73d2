#pragma once

// half on the simulated device: the names of CUDA's cuda_fp16.h.
#include <cuda_runtime.h>

#include "tests/support/simt/small_floats.h"

struct __half_raw {
  unsigned short x;
};
struct alignas(4) __half2_raw {
  unsigned short x, y;
};

struct alignas(2) __half {
  unsigned short __x;

  __half() = default;
  __half(__half_raw raw) : __x(raw.x) {}
  __half(float value) : __x(simt::float_to_half(value)) {}
  __half(double value)
      : __x(static_cast<unsigned short>(simt::to_format<simt::HalfFormat>(value))) {}
  template <typename Integer>
    requires std::is_integral_v<Integer>
  __half(Integer value)  // those beyond 2^53 are rounded twice
      : __half(static_cast<double>(value)) {}

  operator float() const { return simt::half_to_float(__x); }
  operator __half_raw() const { return {__x}; }
  __half& operator=(float value) { return *this = __half(value); }
  __half& operator=(double value) { return *this = __half(value); }
};
struct alignas(4) __half2 {
  __half x, y;

  __half2() = default;
  __half2(__half x_, __half y_) : x(x_), y(y_) {}
  __half2(__half2_raw raw) : x(__half_raw{raw.x}), y(__half_raw{raw.y}) {}
  operator __half2_raw() const { return {x.__x, y.__x}; }
};
using half = __half;
using half2 = __half2;
using nv_half = __half;
using nv_half2 = __half2;

// Conversions.

#define SIMT_FROM(suffix, rounding)                                           \
  inline __half __float2half_##suffix(float value) {                          \
    return __half_raw{static_cast<unsigned short>(                            \
        simt::to_format<simt::HalfFormat>(value, simt::Rounding::rounding))}; \
  }
SIMT_FROM(rn, kNearest)
SIMT_FROM(rz, kZero)
SIMT_FROM(rd, kDown)
SIMT_FROM(ru, kUp)
#undef SIMT_FROM
inline __half __float2half(float value) {
  return value;
}
inline __half __double2half(double value) {
  return value;
}
inline float __half2float(__half value) {
  return value;
}
inline __half __int2half_rn(int value) {
  return value;
}
inline __half __uint2half_rn(unsigned value) {
  return value;
}
inline __half2 __floats2half2_rn(float low, float high) {
  return {low, high};
}
inline __half2 __float22half2_rn(float2 values) {
  return {values.x, values.y};
}
inline __half2 __float2half2_rn(float value) {
  return {value, value};
}
inline float2 __half22float2(__half2 values) {
  return {values.x, values.y};
}
inline float __low2float(__half2 values) {
  return values.x;
}
inline float __high2float(__half2 values) {
  return values.y;
}
inline __half __low2half(__half2 values) {
  return values.x;
}
inline __half __high2half(__half2 values) {
  return values.y;
}
inline __half2 __halves2half2(__half low, __half high) {
  return {low, high};
}
inline __half2 __half2half2(__half value) {
  return {value, value};
}
inline __half2 make_half2(__half low, __half high) {
  return {low, high};
}
inline __half2 __lowhigh2highlow(__half2 values) {
  return {values.y, values.x};
}
inline __half2 __lows2half2(__half2 a, __half2 b) {
  return {a.x, b.x};
}
inline __half2 __highs2half2(__half2 a, __half2 b) {
  return {a.y, b.y};
}
inline unsigned short __half_as_ushort(__half value) {
  return value.__x;
}
inline short __half_as_short(__half value) {
  return static_cast<short>(value.__x);
}
inline __half __ushort_as_half(unsigned short bits) {
  return __half_raw{bits};
}
inline __half __short_as_half(short bits) {
  return __half_raw{static_cast<unsigned short>(bits)};
}

// Arithmetic, rounded once: double holds sums and products of two exactly enough.

#define SIMT_BINARY(name, operation)                                              \
  inline __half name(__half a, __half b) {                                        \
    return static_cast<double>(float(a)) operation static_cast<double>(float(b)); \
  }                                                                               \
  inline __half2 name##2(__half2 a, __half2 b) {                                  \
    return {name(a.x, b.x), name(a.y, b.y)};                                      \
  }                                                                               \
  inline __half operator operation(const __half& a, const __half& b) {            \
    return name(a, b);                                                            \
  }                                                                               \
  inline __half2 operator operation(const __half2& a, const __half2& b) {         \
    return name##2(a, b);                                                         \
  }                                                                               \
  inline __half& operator operation##=(__half & a, const __half & b) {            \
    return a = name(a, b);                                                        \
  }                                                                               \
  inline __half2& operator operation##=(__half2 & a, const __half2 & b) {         \
    return a = name##2(a, b);                                                     \
  }
SIMT_BINARY(__hadd, +)
SIMT_BINARY(__hsub, -)
SIMT_BINARY(__hmul, *)
SIMT_BINARY(__hdiv, /)
#undef SIMT_BINARY
inline __half2 __h2div(__half2 a, __half2 b) {
  return __hdiv2(a, b);
}
inline __half __hfma(__half a, __half b, __half c) {
  return std::fma(static_cast<double>(float(a)), static_cast<double>(float(b)),
                  static_cast<double>(float(c)));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
inline __half __hneg(__half a) {
  return __half_raw{static_cast<unsigned short>(a.__x ^ 0x8000)};
}
inline __half2 __hneg2(__half2 a) {
  return {__hneg(a.x), __hneg(a.y)};
}
inline __half operator-(const __half& a) {
  return __hneg(a);
}
inline __half __habs(__half a) {
  return __half_raw{static_cast<unsigned short>(a.__x & 0x7FFF)};
}
inline __half2 __habs2(__half2 a) {
  return {__habs(a.x), __habs(a.y)};
}
inline bool __hisnan(__half a) {
  return float(a) != float(a);
}
inline int __hisinf(__half a) {
  return std::isinf(float(a)) ? (float(a) < 0 ? -1 : 1) : 0;
}
// Of a number and a NaN, the number; -0 is below +0.
inline __half __hmax(__half a, __half b) {
  if (__hisnan(a) || __hisnan(b)) return __hisnan(a) ? b : a;
  if (float(a) == float(b)) return a.__x & 0x8000 ? b : a;
  return float(a) > float(b) ? a : b;
}
inline __half __hmin(__half a, __half b) {
  if (__hisnan(a) || __hisnan(b)) return __hisnan(a) ? b : a;
  if (float(a) == float(b)) return a.__x & 0x8000 ? a : b;
  return float(a) < float(b) ? a : b;
}
inline __half2 __hmax2(__half2 a, __half2 b) {
  return {__hmax(a.x, b.x), __hmax(a.y, b.y)};
}
inline __half2 __hmin2(__half2 a, __half2 b) {
  return {__hmin(a.x, b.x), __hmin(a.y, b.y)};
}

#define SIMT_COMPARE(name, operation)                                \
  inline bool name(__half a, __half b) {                             \
    return float(a) operation float(b);                              \
  }                                                                  \
  inline bool operator operation(const __half& a, const __half& b) { \
    return float(a) operation float(b);                              \
  }
SIMT_COMPARE(__heq, ==)
SIMT_COMPARE(__hne, !=)
SIMT_COMPARE(__hlt, <)
SIMT_COMPARE(__hle, <=)
SIMT_COMPARE(__hgt, >)
SIMT_COMPARE(__hge, >=)
#undef SIMT_COMPARE

#define SIMT_FUNCTION(name, function)                    \
  inline __half h##name(__half a) {                      \
    return std::function(static_cast<double>(float(a))); \
  }                                                      \
  inline __half2 h2##name(__half2 a) {                   \
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
inline __half hrsqrt(__half a) {
  return 1 / std::sqrt(static_cast<double>(float(a)));
}
inline __half hrcp(__half a) {
  return 1 / static_cast<double>(float(a));
}

// A pair is added half by half, in one word that others may not split.
__forceinline__ __half2 atomicAdd(__half2* address, __half2 value) {
  auto* const word = reinterpret_cast<unsigned*>(address);
  unsigned before = atomicCAS(word, 0u, 0u);
  while (true) {
    const __half2 sum = __hadd2(std::bit_cast<__half2>(before), value);
    const unsigned seen = atomicCAS(word, before, std::bit_cast<unsigned>(sum));
    if (seen == before) return std::bit_cast<__half2>(before);
    before = seen;
  }
}
