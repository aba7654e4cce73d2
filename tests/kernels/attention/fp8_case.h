#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "serrate/kernels/attention_fp8.h"
#include "tests/kernels/attention/case.h"
#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {

inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// What a byte stands for: sign, 4 bits of exponent, 3 of mantissa.
inline double value_of(std::uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if ((bits & 0x7F) == 0x7F) return kNan;
  const double size =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (bits & 0x80) != 0 ? -size : size;
}

// The nearest of the 127 sizes, halves to the even byte.
inline std::uint8_t nearest(float x) {
  if (std::isnan(x)) return 0x7F;
  std::uint8_t above = 0;
  while (above < 0x7E && value_of(above) < std::abs(x)) ++above;
  std::uint8_t best = above;
  if (above > 0) {
    const std::uint8_t below = above - 1;
    const double up = value_of(above) - std::abs(x), down = std::abs(x) - value_of(below);
    if (down < up || (down == up && below % 2 == 0)) best = below;
  }
  return static_cast<std::uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

// Heads in e4m3, with gaps that nothing may write.
struct StoredFp8 {
  static constexpr std::uint8_t kUntouched = 0x55;
  Tokens& tokens;
  std::int64_t terms, head_stride, token_stride;
  TestArray<Float8> values;
  TestArray<float> scales;

  StoredFp8(Tokens& from, std::int64_t batch_size, std::int64_t terms_of_value = 1)
      : tokens(from),
        terms(terms_of_value),
        head_stride(terms * from.head_dim + 16),
        token_stride(from.num_heads * head_stride + 32),
        values((from.end + kTokensAfter) * token_stride),
        scales(num_fp8_scales(from.end - from.begin, batch_size, from.num_heads), -1) {
    for (Float8& x : values.host()) x.bits = kUntouched;
  }
  Fp8Heads on(const Stream& stream) {
    return {{values.on(stream).device_data(), token_stride, head_stride}, scales.on(stream)};
  }
  std::uint8_t& bits(std::int64_t token, std::int64_t head, std::int64_t c) {
    return values[token * token_stride + head * head_stride + c].bits;
  }
  // The place of the scale of a row of sequence s.
  std::int64_t scale_of(const std::vector<std::int64_t>& offsets, std::int64_t s,
                        std::int64_t token, std::int64_t head) const {
    return head * (scales.size() / tokens.num_heads) + (offsets[s] - offsets[0]) / 64 + s +
           (token - offsets[s]) / 64;
  }
  // What is stored, in the places of the tokens.
  std::vector<double> dense(const std::vector<std::int64_t>& offsets) {
    std::vector<double> result((tokens.end + kTokensAfter) * tokens.num_heads * tokens.head_dim);
    std::vector<double> of_bits(256);
    for (int i = 0; i < 256; ++i) of_bits[i] = value_of(static_cast<std::uint8_t>(i));
    const std::vector<Float8>& bytes = values.host();
    for (std::int64_t s = 0; s + 1 < std::ssize(offsets); ++s) {
      for (std::int64_t token = offsets[s]; token < offsets[s + 1]; ++token) {
        for (std::int64_t head = 0; head < tokens.num_heads; ++head) {
          const double scale = scales[scale_of(offsets, s, token, head)];
          const Float8* row = bytes.data() + token * token_stride + head * head_stride;
          double* to = result.data() + (token * tokens.num_heads + head) * tokens.head_dim;
          for (std::int64_t i = 0; i < terms * tokens.head_dim; ++i) {
            to[i % tokens.head_dim] += scale * of_bits[row[i].bits];
          }
        }
      }
    }
    return result;
  }
};

// x D H / sqrt(n) by its definition, in float32 and in the order of butterflies.
inline std::vector<float> rotated(std::vector<float> row) {
  const std::vector<std::uint32_t> pi = {0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344,
                                         0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89};
  const std::size_t n = row.size();
  for (std::size_t c = 0; c < n; ++c) {
    if ((pi[c / 32] >> c % 32 & 1) != 0) row[c] = -row[c];
  }
  for (std::size_t step = 1; step < n; step *= 2) {
    const std::vector<float> before = row;
    for (std::size_t c = 0; c < n; ++c) {
      row[c] = (c & step) != 0 ? before[c ^ step] - before[c] : before[c] + before[c ^ step];
    }
  }
  for (float& x : row) x *= static_cast<float>(1 / std::sqrt(static_cast<double>(n)));
  return row;
}

// Holds all that was stored of a sequence's blocks against the definition.
inline void expect_quantized(StoredFp8& stored, const std::vector<std::int64_t>& offsets,
                             HeadRotation rotation) {
  const std::int64_t dim = stored.tokens.head_dim;
  std::int64_t written = 0;
  for (std::int64_t s = 0; s + 1 < std::ssize(offsets); ++s) {
    for (std::int64_t first = offsets[s]; first < offsets[s + 1]; first += 64) {
      const std::int64_t end = std::min(first + 64, offsets[s + 1]);
      for (std::int64_t head = 0; head < stored.tokens.num_heads; ++head) {
        std::vector<std::vector<float>> rows;
        float largest = 0;
        for (std::int64_t token = first; token < end; ++token) {
          const float* row = stored.tokens.at(token, head);
          rows.emplace_back(row, row + dim);
          if (rotation == HeadRotation::kHadamard) rows.back() = rotated(rows.back());
          for (const float x : rows.back()) {
            if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
          }
        }
        const bool is_zero = largest <= 0x1p-100f;
        ASSERT_EQ(stored.scales[stored.scale_of(offsets, s, first, head)],
                  is_zero ? 0 : largest / 448);
        for (std::int64_t token = first; token < end; ++token) {
          for (std::int64_t c = 0; c < dim; ++c) {
            const float x = rows[token - first][c];
            float scaled = !std::isfinite(x) ? kNan : x * (is_zero ? 0 : 448 / largest);
            for (std::int64_t term = 0; term < stored.terms; ++term, ++written) {
              const std::uint8_t expected = nearest(scaled);
              ASSERT_EQ(stored.bits(token, head, term * dim + c), expected) << x << " column " << c;
              scaled -= static_cast<float>(value_of(expected));
            }
          }
        }
      }
    }
  }
  const auto untouched = std::ranges::count_if(
      stored.values.host(), [](Float8 x) { return x.bits == StoredFp8::kUntouched; });
  EXPECT_GE(untouched, stored.values.size() - written);
}

inline void quantize(const std::vector<std::int64_t>& offsets, HeadRotation rotation,
                     const InputHeads& heads, StoredFp8& to, const Stream& stream) {
  Inputs inputs;
  quantize_heads({.heads = heads,
                  .quantized = to.on(stream),
                  .offsets = inputs.on(stream, offsets),
                  .num_heads = to.tokens.num_heads,
                  .head_dim = to.tokens.head_dim,
                  .terms = to.terms,
                  .rotation = rotation},
                 stream);
  to.values.host();  // the stream is done before the copy of the offsets goes
}

// q, k and v of a case, quantised.
struct Fp8Case {
  Case& c;
  StoredFp8 q, k, v;

  explicit Fp8Case(Case& of, HeadRotation rotation = HeadRotation::kHadamard)
      : c(of),
        q(c.q, std::ssize(c.query_offsets) - 1, fp8_terms_of_queries(c.shape.head_dim)),
        k(c.k, std::ssize(c.key_offsets) - 1),
        v(c.v, std::ssize(c.key_offsets) - 1) {
    const Stream& stream = c.streams.stream;
    quantize(c.query_offsets, rotation, InputHeads(c.q.on(stream)), q, stream);
    quantize(c.key_offsets, rotation, InputHeads(c.k.on(stream)), k, stream);
    quantize(c.key_offsets, HeadRotation::kNone, InputHeads(c.v.on(stream)), v, stream);
  }
  AttentionFp8Forward args() {
    const Stream& stream = c.streams.stream;
    AttentionFp8Forward result{q.on(stream), k.on(stream), v.on(stream), c.forward_args()};
    result.attention.q = result.attention.k = result.attention.v = {};
    return result;
  }
  // `change` has the call before it is made.
  void run(DataType type = DataType::kFloat32,
           const std::function<void(AttentionFp8Forward&)>& change = {}) {
    c.out.clear();
    StoredTokens out(c.out, type);
    AttentionFp8Forward call = args();
    call.attention.out = out.on(c.streams.stream);
    if (change) change(call);
    jagged_attention_fp8_forward(call, c.streams.stream);
    out.load();
  }
  reference::Attention in_double() {
    reference::Attention result = c.in_double();
    result.q = q.dense(c.query_offsets), result.k = k.dense(c.key_offsets);
    result.v = v.dense(c.key_offsets);
    return result;
  }
};

// Whether some sequence of a case takes Hopper's wgmma, for which calls allocate a counter of
// tasks.
inline bool takes_wgmma(Fp8Case& fp8) {
  const Stream& stream = fp8.c.streams.stream;
  const Shape& shape = fp8.c.shape;
  const std::int64_t longest =
      std::max(std::ranges::max(shape.query_lengths), std::ranges::max(shape.key_lengths));
  return stream.device().type != DeviceType::kCpu && longest > most_of_whole(shape.head_dim) &&
         jagged_attention_fp8_forward_workspace(fp8.args(), stream) > 0;
}

inline double rms(const std::vector<double>& x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0) /
                   static_cast<double>(x.size()));
}

// Holds what a run left against attention of what is stored. Weights are rounded by 2^-4 of them at
// most, or 2^-18 of the largest. Returns the output of the reference.
inline reference::AttentionOutput expect_output(Fp8Case& fp8, DataType type) {
  Case& c = fp8.c;
  reference::Attention args = fp8.in_double();
  const reference::AttentionOutput output = reference::attention_forward(args);
  const bool is_cpu = c.streams.stream.device().type == DeviceType::kCpu;
  const double of_weights = is_cpu ? 1e-5 : 0x1p-4;
  const double of_out = type == DataType::kFloat32 ? 1e-6 : 0x1p-8;
  for (double& x : args.v) x = std::abs(x);
  const std::vector<double> absolute = reference::attention_forward(args).out;
  EXPECT_TRUE(c.out.nothing_else_written());
  double worst = 0;
  c.out.for_each([&](float& x, std::int64_t i) {
    const double bound =
        (of_weights + 1e-3) * absolute[i] + of_out * std::abs(output.out[i]) + 1e-30;
    worst = worse_of(worst, std::abs(x - output.out[i]) / bound);
  });
  EXPECT_LE(worst, 1);
  const bool on_wgmma = takes_wgmma(fp8);
  const std::int64_t tokens = c.lse.size() / c.shape.num_heads;
  std::int64_t wrongly_written = 0, wrongly_seen = 0;
  double worst_lse = 0;
  for (std::int64_t i = 0; i < c.lse.size(); ++i) {
    if (i % tokens < c.query_offsets.front() || i % tokens >= c.query_offsets.back()) {
      wrongly_written += std::isnan(c.lse[i]) ? 0 : 1;
    } else if (output.lse[i] == -kInfinity) {
      wrongly_seen += c.lse[i] == -kInfinity ? 0 : 1;
    } else {
      // Sums of sm_89's tensor cores and of Hopper's wgmma have 13 bits; wgmma's are the longest.
      const double bound = on_wgmma ? 1e-3 * std::max(1.0, std::abs(output.lse[i])) : 3e-4;
      worst_lse = worse_of(worst_lse, std::abs(c.lse[i] - output.lse[i]) / bound);
    }
  }
  EXPECT_EQ(wrongly_written, 0) << "log-sum-exp of rows that no sequence has";
  EXPECT_EQ(wrongly_seen, 0) << "log-sum-exp of queries that see no key";
  EXPECT_LE(worst_lse, 1);
  return output;
}

// Likewise, and the error of all: weights are rounded by 0.026 of them as a root mean square, if
// they are anywhere between two powers of two.
inline void expect_reference(Fp8Case& fp8, DataType type = DataType::kFloat32) {
  fp8.run(type);
  const reference::AttentionOutput output = expect_output(fp8, type);
  const bool is_cpu = fp8.c.streams.stream.device().type == DeviceType::kCpu;
  const double of_out = type == DataType::kFloat32 ? 1e-6 : 0x1p-8;
  std::vector<double> errors, sizes;
  fp8.c.out.for_each([&](float& x, std::int64_t i) {
    errors.push_back(x - output.out[i]), sizes.push_back(output.out[i]);
  });
  EXPECT_LE(rms(errors), (is_cpu ? 1e-5 : 0.035) * rms(sizes) + of_out * rms(sizes));
}

}  // namespace serrate
