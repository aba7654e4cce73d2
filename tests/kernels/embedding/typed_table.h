#pragma once

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/embedding/stochastic_rounding.h"
#include "tests/kernels/embedding/fixture.h"

// Numbers of Float16 and BFloat16, and tables of them.
namespace serrate {

inline constexpr float kInfinite = std::numeric_limits<float>::infinity();

template <typename Value>
Value of_bits(int bits) {
  Value value;
  value.bits = static_cast<std::uint16_t>(bits);
  return value;
}

/// A number by the definition of its format: sign, exponent, fraction.
inline double number(Float16 x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const double size = exponent == 0    ? std::ldexp(fraction, -24)
                      : exponent == 31 ? kInfinite
                                       : std::ldexp(1024 + fraction, exponent - 25);
  return x.bits >> 15 != 0 ? -size : size;
}
inline double number(BFloat16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

inline bool is_nan(Float16 x) {
  return (x.bits & 0x7FFF) > 0x7C00;
}
inline bool is_nan(BFloat16 x) {
  return (x.bits & 0x7FFF) > 0x7F80;
}

inline std::uint16_t round_at_random(float x, std::uint32_t random, Float16) {
  return round_to_float16(std::bit_cast<std::uint32_t>(x), random);
}
inline std::uint16_t round_at_random(float x, std::uint32_t random, BFloat16) {
  return round_to_bfloat16(std::bit_cast<std::uint32_t>(x), random);
}

/// A table on a stream's device; behind each row there are some numbers that no kernel may write.
template <typename Value>
class TypedTable {
 public:
  TypedTable(const reference::Matrix& values, const Stream& stream)
      : rows_(values.rows), cols_(values.cols), host_(rows_ * stride(), Value(kGuard)) {
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) {
        host_[r * stride() + c] = Value(static_cast<float>(values(r, c)));
      }
    }
    values_ = Buffer<Value>(host_, stream);
    stream.synchronize();
  }
  DeviceMatrix<Value> view() { return {values_.device_data(), rows_, cols_, stride()}; }
  /// As it was when it was made.
  reference::Matrix start() const { return in_double(host_); }
  reference::Matrix to_host(const Stream& stream) const {
    return in_double(values_.to_host(stream));
  }

 private:
  static constexpr float kGuard = -12344;
  std::int64_t stride() const { return cols_ + (cols_ % 4 == 0 ? 4 : 3); }
  reference::Matrix in_double(const std::vector<Value>& host) const {
    reference::Matrix result(rows_, cols_);
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) {
        result(r, c) = static_cast<float>(host[r * stride() + c]);
      }
      for (std::int64_t c = cols_; c < stride(); ++c) {
        EXPECT_EQ(static_cast<float>(host[r * stride() + c]), static_cast<float>(Value(kGuard)));
      }
    }
    return result;
  }

  std::int64_t rows_, cols_;
  std::vector<Value> host_;
  Buffer<Value> values_;
};

}  // namespace serrate
