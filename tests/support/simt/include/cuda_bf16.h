#pragma once

// bfloat16 on the simulated device: the names of CUDA's cuda_bf16.h.
#include "tests/support/simt/small_float_type.h"

using __nv_bfloat16 = simt::SmallFloat<simt::Bfloat16Format>;
using __nv_bfloat162 = simt::SmallFloat2<simt::Bfloat16Format>;
using __nv_bfloat16_raw = __nv_bfloat16::Raw;
using __nv_bfloat162_raw = __nv_bfloat162::Raw;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  return __nv_bfloat16::rounded(value, simt::Rounding::kNearest);
}
inline __nv_bfloat16 __float2bfloat16_rz(float value) {
  return __nv_bfloat16::rounded(value, simt::Rounding::kZero);
}
inline __nv_bfloat16 __float2bfloat16_rd(float value) {
  return __nv_bfloat16::rounded(value, simt::Rounding::kDown);
}
inline __nv_bfloat16 __float2bfloat16_ru(float value) {
  return __nv_bfloat16::rounded(value, simt::Rounding::kUp);
}
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
  return __nv_bfloat16::of_bits(bits);
}
inline __nv_bfloat16 __short_as_bfloat16(short bits) {
  return __nv_bfloat16::of_bits(static_cast<unsigned short>(bits));
}
