#pragma once

#include <cstdint>
#include <random>

#include "serrate/bfloat16.h"
#include "tests/kernels/attention/case.h"

namespace serrate {

/// Tokens without gaps: rows of `num_heads` heads, of normally distributed values.
struct PackedTokens {
  std::int64_t num_heads, head_dim;

  std::int64_t row() const { return num_heads * head_dim; }
  TestArray<BFloat16> random(std::int64_t tokens, std::mt19937& generator) const {
    std::normal_distribution<float> normal;
    TestArray<BFloat16> values(tokens * row());
    for (BFloat16& x : values.host()) x = BFloat16(normal(generator));
    return values;
  }
  DeviceHeads<BFloat16> on(const TestArray<BFloat16>& x, const Stream& stream) const {
    return {x.on(stream).device_data(), row(), head_dim};
  }
};

}  // namespace serrate
