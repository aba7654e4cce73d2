#pragma once

// The 8 bit formats on the simulated device: the names of CUDA's cuda_fp8.h.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

using __nv_fp8_storage_t = unsigned char;
using __nv_fp8x2_storage_t = unsigned short;
using __nv_fp8x4_storage_t = unsigned int;

enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE };
enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };

inline __nv_fp8_storage_t __nv_cvt_double_to_fp8(double value, __nv_saturation_t saturation,
                                                 __nv_fp8_interpretation_t format) {
  const bool saturate = saturation == __NV_SATFINITE;
  return static_cast<__nv_fp8_storage_t>(
      format == __NV_E4M3
          ? simt::to_format<simt::E4m3Format>(value, simt::Rounding::kNearest, saturate)
          : simt::to_format<simt::E5m2Format>(value, simt::Rounding::kNearest, saturate));
}
inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float value, __nv_saturation_t saturation,
                                                __nv_fp8_interpretation_t format) {
  return __nv_cvt_double_to_fp8(value, saturation, format);
}
inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 values, __nv_saturation_t saturation,
                                                     __nv_fp8_interpretation_t format) {
  return static_cast<__nv_fp8x2_storage_t>(__nv_cvt_float_to_fp8(values.x, saturation, format) |
                                           __nv_cvt_float_to_fp8(values.y, saturation, format)
                                               << 8);
}
inline __nv_fp8_storage_t __nv_cvt_halfraw_to_fp8(__half_raw value, __nv_saturation_t saturation,
                                                  __nv_fp8_interpretation_t format) {
  return __nv_cvt_float_to_fp8(__half(value), saturation, format);
}
inline __nv_fp8_storage_t __nv_cvt_bfloat16raw_to_fp8(__nv_bfloat16_raw value,
                                                      __nv_saturation_t saturation,
                                                      __nv_fp8_interpretation_t format) {
  return __nv_cvt_float_to_fp8(__nv_bfloat16(value), saturation, format);
}
inline __half_raw __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t bits,
                                          __nv_fp8_interpretation_t format) {
  return __half(format == __NV_E4M3 ? simt::from_format<simt::E4m3Format>(bits)
                                    : simt::from_format<simt::E5m2Format>(bits));
}
inline __half2_raw __nv_cvt_fp8x2_to_halfraw2(__nv_fp8x2_storage_t bits,
                                              __nv_fp8_interpretation_t format) {
  return {__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(bits & 0xFF), format).x,
          __nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(bits >> 8), format).x};
}

struct __nv_fp8_e4m3 {
  __nv_fp8_storage_t __x;

  __nv_fp8_e4m3() = default;
  explicit __nv_fp8_e4m3(double value)
      : __x(__nv_cvt_double_to_fp8(value, __NV_SATFINITE, __NV_E4M3)) {}
  explicit __nv_fp8_e4m3(float value) : __nv_fp8_e4m3(static_cast<double>(value)) {}
  explicit __nv_fp8_e4m3(__half value) : __nv_fp8_e4m3(float(value)) {}
  explicit __nv_fp8_e4m3(__nv_bfloat16 value) : __nv_fp8_e4m3(float(value)) {}
  explicit __nv_fp8_e4m3(int value) : __nv_fp8_e4m3(static_cast<double>(value)) {}

  explicit operator float() const { return simt::from_format<simt::E4m3Format>(__x); }
  explicit operator double() const { return float(*this); }
  explicit operator __half() const { return float(*this); }
  explicit operator __nv_bfloat16() const { return float(*this); }
};
struct alignas(2) __nv_fp8x2_e4m3 {
  __nv_fp8x2_storage_t __x;

  __nv_fp8x2_e4m3() = default;
  explicit __nv_fp8x2_e4m3(float2 values)
      : __x(__nv_cvt_float2_to_fp8x2(values, __NV_SATFINITE, __NV_E4M3)) {}
  explicit __nv_fp8x2_e4m3(__nv_bfloat162 values) : __nv_fp8x2_e4m3(float2{values.x, values.y}) {}
  explicit __nv_fp8x2_e4m3(__half2 values) : __nv_fp8x2_e4m3(float2{values.x, values.y}) {}

  explicit operator float2() const {
    return {simt::from_format<simt::E4m3Format>(__x & 0xFF),
            simt::from_format<simt::E4m3Format>(__x >> 8)};
  }
};
struct alignas(4) __nv_fp8x4_e4m3 {
  __nv_fp8x4_storage_t __x;

  __nv_fp8x4_e4m3() = default;
  explicit __nv_fp8x4_e4m3(float4 values)
      : __x(__nv_fp8x2_e4m3(float2{values.x, values.y}).__x |
            static_cast<unsigned>(__nv_fp8x2_e4m3(float2{values.z, values.w}).__x) << 16) {}

  explicit operator float4() const {
    return {simt::from_format<simt::E4m3Format>(__x & 0xFF),
            simt::from_format<simt::E4m3Format>(__x >> 8 & 0xFF),
            simt::from_format<simt::E4m3Format>(__x >> 16 & 0xFF),
            simt::from_format<simt::E4m3Format>(__x >> 24)};
  }
};

struct __nv_fp8_e5m2 {
  __nv_fp8_storage_t __x;

  __nv_fp8_e5m2() = default;
  explicit __nv_fp8_e5m2(double value)
      : __x(__nv_cvt_double_to_fp8(value, __NV_SATFINITE, __NV_E5M2)) {}
  explicit __nv_fp8_e5m2(float value) : __nv_fp8_e5m2(static_cast<double>(value)) {}
  explicit __nv_fp8_e5m2(__half value) : __nv_fp8_e5m2(float(value)) {}
  explicit __nv_fp8_e5m2(__nv_bfloat16 value) : __nv_fp8_e5m2(float(value)) {}
  explicit __nv_fp8_e5m2(int value) : __nv_fp8_e5m2(static_cast<double>(value)) {}

  explicit operator float() const { return simt::from_format<simt::E5m2Format>(__x); }
  explicit operator double() const { return float(*this); }
  explicit operator __half() const { return float(*this); }
  explicit operator __nv_bfloat16() const { return float(*this); }
};
struct alignas(2) __nv_fp8x2_e5m2 {
  __nv_fp8x2_storage_t __x;

  __nv_fp8x2_e5m2() = default;
  explicit __nv_fp8x2_e5m2(float2 values)
      : __x(__nv_cvt_float2_to_fp8x2(values, __NV_SATFINITE, __NV_E5M2)) {}
  explicit __nv_fp8x2_e5m2(__nv_bfloat162 values) : __nv_fp8x2_e5m2(float2{values.x, values.y}) {}
  explicit __nv_fp8x2_e5m2(__half2 values) : __nv_fp8x2_e5m2(float2{values.x, values.y}) {}

  explicit operator float2() const {
    return {simt::from_format<simt::E5m2Format>(__x & 0xFF),
            simt::from_format<simt::E5m2Format>(__x >> 8)};
  }
};
struct alignas(4) __nv_fp8x4_e5m2 {
  __nv_fp8x4_storage_t __x;

  __nv_fp8x4_e5m2() = default;
  explicit __nv_fp8x4_e5m2(float4 values)
      : __x(__nv_fp8x2_e5m2(float2{values.x, values.y}).__x |
            static_cast<unsigned>(__nv_fp8x2_e5m2(float2{values.z, values.w}).__x) << 16) {}

  explicit operator float4() const {
    return {simt::from_format<simt::E5m2Format>(__x & 0xFF),
            simt::from_format<simt::E5m2Format>(__x >> 8 & 0xFF),
            simt::from_format<simt::E5m2Format>(__x >> 16 & 0xFF),
            simt::from_format<simt::E5m2Format>(__x >> 24)};
  }
};
