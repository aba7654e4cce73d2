#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "serrate/bfloat16.h"
#include "serrate/float16.h"
#include "serrate/kernels/attention.h"
#include "tests/support/test_array.h"

// The tokens of a case, as the reference and as kernels have them.
namespace serrate {

inline constexpr std::int64_t kTokensBefore = 2, kTokensAfter = 3;  // that belong to no sequence

inline std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> offsets = {kTokensBefore};
  for (const std::int64_t length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

/// Elements after every head and after every token that belong to none.
struct Gaps {
  std::int64_t head = 5, token = 3;
};
/// With heads of a multiple of 8 columns: rows of bfloat16 are aligned to 16 bytes, as CUDA's
/// tensor cores want them.
inline constexpr Gaps kAlignedGaps{8, 16};

// [num_tokens, num_heads, head_dim] with a gap after every head and after every token. Values
// outside the sequences and in the gaps are NaN: a kernel that reads one shows it.
struct Tokens {
  std::int64_t begin, end, num_heads, head_dim, head_stride, token_stride;
  TestArray<float> values;

  Tokens(const std::vector<std::int64_t>& offsets, std::int64_t heads, std::int64_t dim,
         Gaps gaps = {})
      : begin(offsets.front()),
        end(offsets.back()),
        num_heads(heads),
        head_dim(dim),
        head_stride(dim + gaps.head),
        token_stride(heads * head_stride + gaps.token),
        values((end + kTokensAfter) * token_stride, std::nanf("")) {}

  template <typename F>
  void for_each(F&& f) {
    std::vector<float>& on_host = values.host();
    for (std::int64_t token = begin; token < end; ++token) {
      for (std::int64_t head = 0; head < num_heads; ++head) {
        for (std::int64_t c = 0; c < head_dim; ++c) {
          f(on_host[token * token_stride + head * head_stride + c],
            (token * num_heads + head) * head_dim + c);
        }
      }
    }
  }
  void randomise(std::mt19937& generator, float scale) {
    std::normal_distribution<float> normal(0, scale);
    for_each([&](float& x, std::int64_t) { x = normal(generator); });
  }
  // Dense, for the reference.
  std::vector<double> dense() {
    std::vector<double> result((end + kTokensAfter) * num_heads * head_dim, 0.0);
    for_each([&](float& x, std::int64_t i) { result[i] = x; });
    return result;
  }
  bool nothing_else_written() {
    std::int64_t inside = 0, finite = 0;
    for_each([&](float& x, std::int64_t) { inside += !std::isnan(x); });
    for (const float x : values.host()) finite += !std::isnan(x);
    return inside == finite && inside == (end - begin) * num_heads * head_dim;
  }
  void clear() { std::ranges::fill(values.host(), std::nanf("")); }
  // On the host.
  float* at(std::int64_t token, std::int64_t head) {
    return values.host().data() + token * token_stride + head * head_stride;
  }
  // For an op, which counts tokens from `first` on.
  DeviceHeads<float> on(const Stream& stream, std::int64_t first = 0) {
    return {values.on(stream).device_data() + first * token_stride, token_stride, head_stride};
  }
};

// A case's tokens as they are stored: what the kernels see. The tokens become the same numbers.
struct StoredTokens {
  Tokens& tokens;
  DataType type;
  TestArray<std::uint16_t> halves;

  StoredTokens(Tokens& x, DataType stored) : tokens(x), type(stored) {
    if (type == DataType::kFloat32) return;
    for (const float value : x.values.host()) {
      halves.host().push_back(type == DataType::kFloat16 ? Float16(value).bits
                                                         : BFloat16(value).bits);
    }
    load();
  }
  // What is stored, as float32.
  void load() {
    for (std::int64_t i = 0; i < halves.size(); ++i) {
      tokens.values[i] = type == DataType::kFloat16
                             ? static_cast<float>(std::bit_cast<Float16>(halves[i]))
                             : static_cast<float>(std::bit_cast<BFloat16>(halves[i]));
    }
  }
  OutputHeads on(const Stream& stream, std::int64_t first = 0) {
    if (type == DataType::kFloat32) return tokens.on(stream, first);
    OutputHeads heads;
    heads.device_data = halves.on(stream).device_data() + first * tokens.token_stride;
    heads.type = type;
    heads.token_stride = tokens.token_stride, heads.head_stride = tokens.head_stride;
    return heads;
  }
};

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
