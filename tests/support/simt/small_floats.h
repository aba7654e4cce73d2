#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

// Conversions between float and the 16 and 8 bit formats, for the types of CUDA's headers and for
// the libraries on the simulated device.

namespace simt {

enum class Rounding { kNearest, kZero, kDown, kUp };

/// A format with an exponent of kExponent bits and kMantissa bits of significand.
template <int kExponent, int kMantissa>
struct FloatFormat {
  static constexpr int kBias = (1 << (kExponent - 1)) - 1;
  static constexpr int kBits = 1 + kExponent + kMantissa;
  static constexpr std::uint32_t kSign = 1u << (kBits - 1);
  // e4m3 has no infinity: its largest exponent holds numbers, and one NaN.
  static constexpr bool kHasInfinity = kExponent != 4;
  static constexpr std::uint32_t kInfinity = ((1u << kExponent) - 1) << kMantissa;
  static constexpr std::uint32_t kLargest = kHasInfinity ? kInfinity - 1 : kSign - 2;
  static constexpr std::uint32_t kNan = kSign - 1;
};
using Bfloat16Format = FloatFormat<8, 7>;
using HalfFormat = FloatFormat<5, 10>;
using E4m3Format = FloatFormat<4, 3>;
using E5m2Format = FloatFormat<5, 2>;

template <typename Format>
struct FormatTraits;
template <int kE, int kM>
struct FormatTraits<FloatFormat<kE, kM>> {
  static constexpr int kMantissa = kM;
};

/// The bits of a number, rounded once. Beyond the largest number lies infinity (NaN where there is
/// none); with `saturate` the largest number.
template <typename Format>
std::uint32_t to_format(double value, Rounding rounding = Rounding::kNearest,
                        bool saturate = false) {
  constexpr int kM = FormatTraits<Format>::kMantissa;
  const std::uint32_t sign = std::signbit(value) ? Format::kSign : 0;
  if (std::isnan(value)) return Format::kNan;
  const double size = std::fabs(value);
  const std::uint32_t beyond = saturate               ? Format::kLargest
                               : Format::kHasInfinity ? Format::kInfinity
                                                      : Format::kNan;
  if (std::isinf(size)) return sign | beyond;
  if (size == 0) return sign;
  int exponent = 0;
  std::frexp(size, &exponent);
  --exponent;  // size = 1.m * 2^exponent
  const int smallest = 1 - Format::kBias;
  const bool normal = exponent >= smallest;
  const double units = std::ldexp(size, kM - (normal ? exponent : smallest));
  double whole = std::floor(units);
  const double rest = units - whole;
  const bool away =
      rounding == Rounding::kNearest ? rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2) == 1)
      : rounding == Rounding::kZero  ? false
                                     : rest > 0 && (rounding == Rounding::kUp) != (sign != 0);
  if (away) ++whole;
  const auto significand = static_cast<std::int64_t>(whole);
  const std::int64_t bits =
      normal ? (std::int64_t{exponent + Format::kBias} << kM) + significand - (1 << kM)
             : significand;
  if (bits > Format::kLargest) {
    const bool to_largest =
        rounding == Rounding::kZero ||
        (rounding != Rounding::kNearest && (rounding == Rounding::kUp) == (sign != 0));
    return sign | (to_largest ? Format::kLargest : beyond);
  }
  return sign | static_cast<std::uint32_t>(bits);
}

template <typename Format>
float from_format(std::uint32_t bits) {
  constexpr int kM = FormatTraits<Format>::kMantissa;
  const std::uint32_t size = bits & (Format::kSign - 1);
  const float sign = bits & Format::kSign ? -1.0f : 1.0f;
  if (size > Format::kLargest) {
    return Format::kHasInfinity && size == Format::kInfinity
               ? sign * std::numeric_limits<float>::infinity()
               : std::numeric_limits<float>::quiet_NaN();
  }
  const auto exponent = static_cast<int>(size >> kM);
  const std::uint32_t mantissa = size & ((1u << kM) - 1);
  return sign * (exponent == 0 ? std::ldexp(static_cast<float>(mantissa), 1 - Format::kBias - kM)
                               : std::ldexp(static_cast<float>(mantissa + (1u << kM)),
                                            exponent - Format::kBias - kM));
}

// The two that kernels convert all the time, without ldexp.
inline float bfloat16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
inline std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline float half_to_float(std::uint16_t bits) {
  return static_cast<float>(std::bit_cast<_Float16>(bits));
}
inline std::uint16_t float_to_half(float value) {
  if (value != value) return 0x7FFF;
  return std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
}

/// To 11 bits, halves away from zero.
inline std::uint32_t round_to_tf32(float value) {
  if (value != value) return 0x7FFFFFFF;
  return (std::bit_cast<std::uint32_t>(value) + 0x1000) & 0xFFFFE000;
}
/// Without the 13 bits that a tensor core does not read.
inline float truncate_to_tf32(float value) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & 0xFFFFE000);
}

}  // namespace simt
