#pragma once

// half on the simulated device: the names of CUDA's cuda_fp16.h.
#include "tests/support/simt/small_float_type.h"

using __half = simt::SmallFloat<simt::HalfFormat>;
using __half2 = simt::SmallFloat2<simt::HalfFormat>;
using __half_raw = __half::Raw;
using __half2_raw = __half2::Raw;
using half = __half;
using half2 = __half2;
using nv_half = __half;
using nv_half2 = __half2;

inline __half __float2half_rn(float value) {
  return __half::rounded(value, simt::Rounding::kNearest);
}
inline __half __float2half_rz(float value) {
  return __half::rounded(value, simt::Rounding::kZero);
}
inline __half __float2half_rd(float value) {
  return __half::rounded(value, simt::Rounding::kDown);
}
inline __half __float2half_ru(float value) {
  return __half::rounded(value, simt::Rounding::kUp);
}
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
  return __half::of_bits(bits);
}
inline __half __short_as_half(short bits) {
  return __half::of_bits(static_cast<unsigned short>(bits));
}
