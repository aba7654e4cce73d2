// FBGEMM's attention of its sequence learning library, by its definition and by Serrate's calls.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "serrate/kernels/attention.h"
#include "tests/support/test_array.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

using Doubles = std::vector<double>;
using Floats = TestArray<float>;

constexpr std::int64_t kDim = 12;
const std::vector<std::int64_t> kOffsets = {0, 40, 40, 141, 148, 149};
const std::int64_t kTokens = kOffsets.back(), kSequences = 5, kMaxSeqLen = 110;

Floats random_floats(std::int64_t size, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Floats result(size);
  for (float& x : result.host()) x = normal(generator);
  return result;
}

template <typename Size>
void expect_near(const Floats& actual, const Doubles& expected, Size tolerance) {
  ASSERT_EQ(actual.size(), std::ssize(expected));
  for (std::int64_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance) << i;
  }
}

// As attention has them, of one head.
DeviceHeads<float> rows(const Floats& x, const Stream& stream) {
  return {x.on(stream).device_data(), kDim, kDim};
}

double dot(const float* a, const float* b, std::int64_t stride_of_b = 1) {
  double sum = 0;
  for (std::int64_t x = 0; x < kDim; ++x) sum += static_cast<double>(a[x]) * b[x * stride_of_b];
  return sum;
}

// Softmax of scores, then its gradient from that of the weights.
Doubles softmax(const Doubles& scores) {
  double sum = 0;
  Doubles weights;
  for (const double x : scores) sum += weights.emplace_back(std::exp(x));
  for (double& x : weights) x /= sum;
  return weights;
}
Doubles softmax_gradient(const Doubles& weights, const Doubles& d_weights) {
  double mean = 0;
  for (std::size_t j = 0; j < weights.size(); ++j) mean += weights[j] * d_weights[j];
  Doubles d_scores;
  for (std::size_t j = 0; j < weights.size(); ++j) {
    d_scores.push_back(weights[j] * (d_weights[j] - mean));
  }
  return d_scores;
}

class Fbgemm : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, Fbgemm, testing::ValuesIn(test_devices()), device_name);

// jagged_dense_flash_attention: q and v [tokens, D] are jagged, k [B, D, T] and the bias [B, N, T]
// dense; out [B, T, D] = softmax over the jagged axis of (q k + bias), times v.
TEST_P(Fbgemm, JaggedDenseFlashAttention) {
  constexpr std::int64_t kT = 9;
  const Floats q = random_floats(kTokens * kDim, 1), v = random_floats(kTokens * kDim, 2);
  const Floats k = random_floats(kSequences * kDim * kT, 3);
  const Floats bias = random_floats(kSequences * kMaxSeqLen * kT, 4);
  const Floats d_out = random_floats(kSequences * kT * kDim, 5);

  Doubles out(d_out.size()), d_q(q.size()), d_k(k.size()), d_v(v.size()), d_bias(bias.size());
  for (std::int64_t b = 0; b < kSequences; ++b) {
    const std::int64_t first = kOffsets[b], length = kOffsets[b + 1] - first;
    for (std::int64_t t = 0; t < kT; ++t) {
      const float* k_column = &k[b * kDim * kT + t];
      const std::int64_t row = (b * kT + t) * kDim;
      const auto bias_at = [&](std::int64_t n) { return (b * kMaxSeqLen + n) * kT + t; };
      Doubles scores, d_weights;
      for (std::int64_t n = 0; n < length; ++n) {
        scores.push_back(dot(&q[(first + n) * kDim], k_column, kT) + bias[bias_at(n)]);
        d_weights.push_back(dot(&d_out[row], &v[(first + n) * kDim]));
      }
      const Doubles weights = softmax(scores), d_scores = softmax_gradient(weights, d_weights);
      for (std::int64_t n = 0; n < length; ++n) {
        d_bias[bias_at(n)] = d_scores[n];
        for (std::int64_t x = 0; x < kDim; ++x) {
          const std::int64_t at = (first + n) * kDim + x;
          out[row + x] += weights[n] * v[at];
          d_v[at] += weights[n] * d_out[row + x];
          d_q[at] += d_scores[n] * k_column[x * kT];
          d_k[(b * kDim + x) * kT + t] += d_scores[n] * q[at];
        }
      }
    }
  }

  // Its k are the queries here, T a sequence and token by token, its q the keys.
  const auto swap_last_axes = [&](const Floats& from, std::int64_t rows, std::int64_t columns) {
    Floats to(from.size());
    for (std::int64_t i = 0; i < from.size(); ++i) {
      const std::int64_t in_block = i % (rows * columns);
      to[i - in_block + in_block % columns * rows + in_block / columns] = from[i];
    }
    return to;
  };
  const Floats queries = swap_last_axes(k, kDim, kT);
  TestArray<std::int64_t> query_offsets(kSequences + 1);
  for (std::int64_t b = 0; b <= kSequences; ++b) query_offsets[b] = b * kT;
  const TestArray<std::int64_t> offsets(kOffsets);
  Floats our_out(std::ssize(out)), our_d_queries(k.size()), our_d_q(q.size()), our_d_v(v.size());
  Floats our_d_bias(bias.size()), lse(kSequences * kT);
  const AttentionForward forward{
      .q = rows(queries, stream),
      .k = rows(q, stream),
      .v = rows(v, stream),
      .out = rows(our_out, stream),
      .lse = lse.on(stream),
      .query_offsets = query_offsets.on(stream),
      .key_offsets = offsets.on(stream),
      .head_dim = kDim,
      .mask = FullMask{},
      .bias = {.data = bias.on(stream),
               .sequence_stride = kMaxSeqLen * kT,
               .query_stride = 1,
               .key_stride = kT},
  };
  jagged_attention_forward(forward, stream);
  jagged_attention_backward({.forward = forward,
                             .d_out = rows(d_out, stream),
                             .d_q = rows(our_d_queries, stream),
                             .d_k = rows(our_d_q, stream),
                             .d_v = rows(our_d_v, stream),
                             .d_bias = our_d_bias.on(stream)},
                            stream);
  expect_near(our_out, out, 2e-6);
  expect_near(swap_last_axes(our_d_queries, kT, kDim), d_k, 2e-5);
  expect_near(our_d_q, d_q, 2e-5);
  expect_near(our_d_v, d_v, 2e-5);
  expect_near(our_d_bias, d_bias, 2e-5);
}

// Self-attention of one head: weights are softmax of scores, divided by N, and 0 where the mask
// says so, without another normalisation.
struct SelfAttention {
  Doubles out, d_q, d_k, d_v;
};

template <typename Kept>
SelfAttention self_attention(const float* q, const float* k, const float* v, const float* d_out,
                             double n, Kept&& is_kept) {
  const auto size = static_cast<std::size_t>(kTokens * kDim);
  SelfAttention result{Doubles(size), Doubles(size), Doubles(size), Doubles(size)};
  for (std::int64_t s = 0; s < kSequences; ++s) {
    for (std::int64_t i = kOffsets[s]; i < kOffsets[s + 1]; ++i) {
      Doubles scores, d_weights;
      for (std::int64_t j = kOffsets[s]; j < kOffsets[s + 1]; ++j) {
        scores.push_back(dot(q + i * kDim, k + j * kDim));
        d_weights.push_back(is_kept(i, j) ? dot(d_out + i * kDim, v + j * kDim) / n : 0);
      }
      const Doubles weights = softmax(scores), d_scores = softmax_gradient(weights, d_weights);
      for (std::int64_t j = kOffsets[s]; j < kOffsets[s + 1]; ++j) {
        const double weight = is_kept(i, j) ? weights[j - kOffsets[s]] / n : 0;
        const double d_score = d_scores[j - kOffsets[s]];
        for (std::int64_t x = 0; x < kDim; ++x) {
          result.out[i * kDim + x] += weight * v[j * kDim + x];
          result.d_v[j * kDim + x] += weight * d_out[i * kDim + x];
          result.d_q[i * kDim + x] += d_score * k[j * kDim + x];
          result.d_k[j * kDim + x] += d_score * q[i * kDim + x];
        }
      }
    }
  }
  return result;
}

// multi_head_jagged_flash_attention: q, k and v are [H, tokens, D].
TEST_P(Fbgemm, MultiHeadJaggedFlashAttention) {
  constexpr std::int64_t kHeads = 3;
  const std::int64_t head = kTokens * kDim;
  const Floats q = random_floats(kHeads * head, 1), k = random_floats(kHeads * head, 2);
  const Floats v = random_floats(kHeads * head, 3), d_out = random_floats(kHeads * head, 4);
  Floats out(q.size()), d_q(q.size()), d_k(q.size()), d_v(q.size()), lse(kHeads * kTokens);
  const TestArray<std::int64_t> offsets(kOffsets);
  const auto view = [&](const Floats& x) {
    return DeviceHeads<float>{x.on(stream).device_data(), kDim, head};
  };
  const AttentionForward forward{.q = view(q),
                                 .k = view(k),
                                 .v = view(v),
                                 .out = view(out),
                                 .lse = lse.on(stream),
                                 .query_offsets = offsets.on(stream),
                                 .key_offsets = offsets.on(stream),
                                 .num_heads = kHeads,
                                 .head_dim = kDim,
                                 .mask = FullMask{}};
  jagged_attention_forward(forward, stream);
  jagged_attention_backward({forward, view(d_out), view(d_q), view(d_k), view(d_v)}, stream);
  for (std::int64_t h = 0; h < kHeads; ++h) {
    const SelfAttention expected =
        self_attention(&q[h * head], &k[h * head], &v[h * head], &d_out[h * head], 1,
                       [](auto, auto) { return true; });
    const auto of_head = [&](const Floats& x) {
      const auto begin = x.host().begin() + h * head;
      return Floats(std::vector<float>(begin, begin + head));
    };
    expect_near(of_head(out), expected.out, 3e-6);
    expect_near(of_head(d_q), expected.d_q, 3e-5);
    expect_near(of_head(d_k), expected.d_k, 3e-5);
    expect_near(of_head(d_v), expected.d_v, 3e-5);
  }
}

// jagged_flash_attention_basic, one head.
struct Basic {
  const Stream& stream;
  std::int64_t size = kTokens * kDim;
  Floats q = random_floats(size, 1), k = random_floats(size, 2), v = random_floats(size, 3);
  Floats d_out = random_floats(size, 4), out = Floats(size);
  TestArray<std::int64_t> offsets = kOffsets;

  template <typename Kept>
  SelfAttention expected(Kept&& is_kept) const {
    return self_attention(q.host().data(), k.host().data(), v.host().data(), d_out.host().data(),
                          kMaxSeqLen, is_kept);
  }
  void forward(const AttentionMask& mask, const Floats& lse) const {
    jagged_attention_forward(args(mask, lse), stream);
  }
  AttentionForward args(const AttentionMask& mask, const Floats& lse) const {
    return {.q = rows(q, stream),
            .k = rows(k, stream),
            .v = rows(v, stream),
            .out = rows(out, stream),
            .lse = lse.on(stream),
            .query_offsets = offsets.on(stream),
            .key_offsets = offsets.on(stream),
            .head_dim = kDim,
            .mask = mask};
  }
};

struct Gradients {
  Floats d_q = Floats(kTokens * kDim), d_k = d_q, d_v = d_q;
  AttentionBackward args(const AttentionForward& forward, const Basic& basic) const {
    const Stream& stream = basic.stream;
    return {forward, rows(basic.d_out, stream), rows(d_q, stream), rows(d_k, stream),
            rows(d_v, stream)};
  }
};

void scale(const Floats& x, float factor) {
  for (float& value : x.host()) value *= factor;
}

// Without its mask: 1 / max_seq_len goes on out, and on d_out.
TEST_P(Fbgemm, JaggedFlashAttentionBasic) {
  const Basic basic{stream};
  const SelfAttention expected = basic.expected([](auto, auto) { return true; });
  const Floats lse(kTokens);
  const Gradients gradients;
  basic.forward(FullMask{}, lse);
  scale(basic.d_out, 1.0f / kMaxSeqLen);
  jagged_attention_backward(gradients.args(basic.args(FullMask{}, lse), basic), stream);
  scale(basic.out, 1.0f / kMaxSeqLen);
  expect_near(basic.out, expected.out, 1e-7);
  expect_near(gradients.d_q, expected.d_q, 1e-6);
  expect_near(gradients.d_k, expected.d_k, 1e-6);
  expect_near(gradients.d_v, expected.d_v, 1e-6);
}

// With its mask, which leaves the keys from a query's own on: the weights that are 0 have their
// share of softmax's sum, and of its gradient. Two calls that share the lse of all keys.
TEST_P(Fbgemm, JaggedFlashAttentionBasicWithItsMaskAfterSoftmax) {
  const Basic basic{stream};
  const SelfAttention expected =
      basic.expected([](std::int64_t i, std::int64_t j) { return j >= i; });
  const WindowMask kept{.left = 0}, rest{.right = -1};
  const Floats lse(kTokens), kept_lse(kTokens);
  basic.forward(FullMask{}, lse);
  basic.forward(kept, kept_lse);
  for (std::int64_t i = 0; i < basic.size; ++i) {
    basic.out[i] *= std::exp(kept_lse[i / kDim] - lse[i / kDim]);
  }

  // The gradient of what is kept; then of what is not, whose values might as well be 0.
  scale(basic.d_out, 1.0f / kMaxSeqLen);
  const Gradients of_kept, of_rest;
  jagged_attention_backward(of_kept.args(basic.args(kept, lse), basic), stream);
  AttentionForward args = basic.args(rest, lse);
  const Floats zeros(kDim);
  args.v = DeviceHeads<float>{zeros.on(stream).device_data(), 0, 0};
  jagged_attention_backward(of_rest.args(args, basic), stream);
  for (std::int64_t i = 0; i < basic.size; ++i) {
    of_kept.d_q[i] += of_rest.d_q[i], of_kept.d_k[i] += of_rest.d_k[i];
  }
  scale(basic.out, 1.0f / kMaxSeqLen);
  expect_near(basic.out, expected.out, 1e-7);
  expect_near(of_kept.d_q, expected.d_q, 1e-6);
  expect_near(of_kept.d_k, expected.d_k, 1e-6);
  expect_near(of_kept.d_v, expected.d_v, 1e-6);
}

}  // namespace
}  // namespace serrate
