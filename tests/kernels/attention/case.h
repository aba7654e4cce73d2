#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "kernels/simd/targets.h"

#include "hwy/highway.h"
#include "serrate/kernels/attention.h"
#include "serrate/random.h"
#include "tests/kernels/attention/tokens.h"
#include "tests/reference/attention.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {

/// How often, or which sizes: other devices have smaller tiles, and the simulated one takes a
/// thousand times as long as the CPU.
template <typename T>
T on_cpu_or_not(const T& on_cpu, const T& elsewhere) {
  return tests_run_on_devices() ? elsewhere : on_cpu;
}

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Shape {
  std::vector<std::int64_t> query_lengths, key_lengths;
  std::int64_t num_heads = 1;
  std::int64_t head_dim = 8;
  AttentionMask mask = kCausalMask;
  reference::Visible visible = reference::causal;  // the same, pair by pair
  std::int64_t num_key_heads = num_heads;
  AttentionActivation activation = AttentionActivation::kSoftmax;
  float silu_divisor = 50;
  Gaps gaps = {};
};

inline Shape causal_shape(std::vector<std::int64_t> query_lengths,
                          std::vector<std::int64_t> key_lengths, std::int64_t num_heads,
                          std::int64_t head_dim) {
  return {std::move(query_lengths), std::move(key_lengths), num_heads, head_dim};
}

inline Shape full_shape(std::vector<std::int64_t> query_lengths,
                        std::vector<std::int64_t> key_lengths, std::int64_t num_heads,
                        std::int64_t head_dim) {
  return {std::move(query_lengths),
          std::move(key_lengths),
          num_heads,
          head_dim,
          FullMask{},
          [](std::int64_t, std::int64_t, std::int64_t) { return true; }};
}

/// With a quarter of the lengths where the device is not the CPU: several tiles still.
inline Shape sized(Shape shape) {
  for (auto* lengths : {&shape.query_lengths, &shape.key_lengths}) {
    for (std::int64_t& length : *lengths) length = on_cpu_or_not(length, (length + 3) / 4);
  }
  return shape;
}

// Host values as inputs of ops: on the CPU where they are, else copies that last as long as this
// or a copy of it.
class Inputs {
 public:
  template <typename T>
  DeviceSpan<const T> on(const Stream& stream, const std::vector<T>& values) {
    if (stream.device() == Device::cpu()) return on_cpu(values);
    auto buffer = std::make_shared<const Buffer<T>>(values, stream);
    copies_.push_back(buffer);
    return buffer->span();
  }

 private:
  std::vector<std::shared_ptr<const void>> copies_;
};

struct Case {
  Shape shape;
  TestStreams& streams;
  std::vector<std::int64_t> query_offsets, key_offsets;
  Tokens q, k, v, d_out, out, d_q, d_k, d_v;
  TestArray<float> lse;
  float scale;
  Inputs inputs = {};
  AttentionBias bias = {};
  std::vector<double> bias_of_pairs = {};  // for the reference
  TestArray<float>* d_bias = nullptr;
  AttentionTable position_table = {}, time_table = {};
  std::vector<std::int64_t> query_times = {}, key_times = {};
  TestArray<float> d_position_table = {}, d_time_table = {};
  DropoutKey dropout = {};
  std::vector<std::int64_t> token_ids = {};  // of dropout
  std::vector<double> kept_of_pairs = {};    // for the reference
  TestArray<float>* partials = nullptr;

  Case(const Shape& s, TestStreams& on, float logit_size = 1)
      : shape(s),
        streams(on),
        query_offsets(offsets_of(s.query_lengths)),
        key_offsets(offsets_of(s.key_lengths)),
        q(query_offsets, s.num_heads, s.head_dim, s.gaps),
        k(key_offsets, s.num_key_heads, s.head_dim, s.gaps),
        v(k),
        d_out(q),
        out(q),
        d_q(q),
        d_k(k),
        d_v(k),
        lse((query_offsets.back() + kTokensAfter) * s.num_heads, std::nanf("")),
        scale(1 / std::sqrt(static_cast<float>(s.head_dim))) {
    std::mt19937 generator(7);
    q.randomise(generator, logit_size);
    for (Tokens* x : {&k, &v, &d_out}) x->randomise(generator, 1);
  }

  // An input of this case; `values` have to stay as they are.
  template <typename T>
  DeviceSpan<const T> input(const std::vector<T>& values) {
    return inputs.on(streams.stream, values);
  }
  // The calls read it on the streams' device; nothing may look at results on the host meanwhile.
  AttentionForward forward_args() {
    const Stream& stream = streams.stream;
    AttentionForward args{.q = q.on(stream),
                          .k = k.on(stream),
                          .v = v.on(stream),
                          .out = out.on(stream),
                          .lse = lse.on(stream),
                          .query_offsets = input(query_offsets),
                          .key_offsets = input(key_offsets),
                          .num_heads = shape.num_heads,
                          .num_key_heads = shape.num_key_heads,
                          .head_dim = shape.head_dim,
                          .scale = scale,
                          .mask = shape.mask,
                          .activation = shape.activation,
                          .silu_divisor = shape.silu_divisor,
                          .bias = bias,
                          .position_table = position_table,
                          .time_table = time_table,
                          .query_times = input(query_times),
                          .key_times = input(key_times),
                          .dropout = dropout};
    args.dropout.token_ids = input(token_ids);
    if (partials) args.partials = partials->on(stream);
    return args;
  }
  AttentionBackward backward_args() {
    const Stream& stream = streams.stream;
    return {.forward = forward_args(),
            .d_out = d_out.on(stream),
            .d_q = d_q.on(stream),
            .d_k = d_k.on(stream),
            .d_v = d_v.on(stream),
            .d_bias = d_bias ? d_bias->on(stream) : DeviceSpan<float>(),
            .d_position_table = d_position_table.on(stream),
            .d_time_table = d_time_table.on(stream)};
  }
  void run(int num_threads = 1) {
    for (Tokens* x : {&out, &d_q, &d_k, &d_v}) x->clear();  // nothing is left of an earlier run
    const AttentionBackward args = backward_args();
    jagged_attention_forward(args.forward, streams.threads(num_threads));
    jagged_attention_backward(args, streams.threads(num_threads));
  }
  // Calls f(pair of reference::Attention, sequence, head, query, key).
  template <typename F>
  void for_each_pair(F&& f) const {
    reference::Attention sizes;
    sizes.query_offsets = query_offsets, sizes.key_offsets = key_offsets;
    sizes.num_heads = shape.num_heads;
    const std::int64_t queries = sizes.longest_queries(), keys = sizes.longest_keys();
    for (std::int64_t s = 0; s < std::ssize(shape.query_lengths); ++s) {
      for (std::int64_t head = 0; head < shape.num_heads; ++head) {
        for (std::int64_t i = 0; i < shape.query_lengths[s]; ++i) {
          const std::int64_t row = ((s * shape.num_heads + head) * queries + i) * keys;
          for (std::int64_t j = 0; j < shape.key_lengths[s]; ++j) {
            f(static_cast<std::size_t>(row + j), s, head, i, j);
          }
        }
      }
    }
  }
  std::int64_t time_apart(std::int64_t s, std::int64_t i, std::int64_t j) const {
    return query_times[query_offsets[s] + i] - key_times[key_offsets[s] + j];
  }
  reference::Attention in_double() {
    const bool is_softmax = shape.activation == AttentionActivation::kSoftmax;
    return {q.dense(),
            k.dense(),
            v.dense(),
            query_offsets,
            key_offsets,
            shape.num_heads,
            shape.head_dim,
            scale,
            shape.visible,
            shape.num_key_heads,
            is_softmax ? 0 : shape.silu_divisor,
            bias_of_pairs,
            kept_of_pairs};
  }
};

// The entry of a table for a distance, by its definition.
inline std::int64_t count_up_to(const std::vector<std::int64_t>& boundaries,
                                std::int64_t distance) {
  return std::ranges::count_if(boundaries, [&](std::int64_t b) { return b <= distance; });
}

// Ids of more than 32 bits.
inline std::vector<std::int64_t> ids_of_tokens(const Case& c) {
  std::vector<std::int64_t> ids(c.query_offsets.back());
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i * 7 + 1) << 31;
  return ids;
}

// What dropout multiplies weights by, word by word, as its declaration says.
inline std::vector<double> kept_of(const Case& c, const reference::Attention& args) {
  const DropoutKey& key = c.dropout;
  const std::uint64_t bits =
      random_bits(key.seed, RandomUse::kDropout, 0, static_cast<std::uint64_t>(key.step));
  std::vector<double> kept(args.num_pairs(), 0.0);
  for (std::int64_t s = 0; s < std::ssize(c.shape.query_lengths); ++s) {
    for (std::int64_t head = 0; head < c.shape.num_heads; ++head) {
      for (std::int64_t i = 0; i < c.shape.query_lengths[s]; ++i) {
        const auto id = static_cast<std::uint64_t>(c.token_ids[c.query_offsets[s] + i]);
        for (std::int64_t j = 0; j < c.shape.key_lengths[s]; ++j) {
          const auto words = philox4x32(
              {static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32),
               static_cast<std::uint32_t>(j / 4),
               key.site + (static_cast<std::uint32_t>(head) << 16)},
              {static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)});
          const bool is_kept = words[j % 4] >= std::floor(key.rate * std::pow(2.0, 32));
          kept[args.pair_of(s, head, i, j)] = is_kept ? 1 / (1 - static_cast<double>(key.rate)) : 0;
        }
      }
    }
  }
  return kept;
}

// The larger of two errors, or NaN if either is: std::max() would drop that of a later value.
inline double worse_of(double worst, double x) {
  return x > worst || std::isnan(x) ? x : worst;
}

inline void expect_close(Tokens& actual, const std::vector<double>& expected, double tolerance) {
  EXPECT_TRUE(actual.nothing_else_written());
  double largest = 0.1, worst = 0;  // what ought to be 0 is as good as the terms of its sum
  for (const double x : expected) largest = std::max(largest, std::abs(x));
  actual.for_each(
      [&](float& x, std::int64_t i) { worst = worse_of(worst, std::abs(x - expected[i])); });
  EXPECT_LE(worst, tolerance * largest);
}

// What the machine runs best, and every other way that the CPU's kernels are compiled.
template <typename F>
void for_every_target(Device device, F&& f) {
  if (device != Device::cpu()) return f();
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(hwy::TargetName(target));
    f();
  }
  hwy::SetSupportedTargetsForTest(0);
}

// The log-sum-exp that a run left, [num_heads, tokens].
inline void expect_lse(Case& c, const std::vector<double>& expected, double tolerance) {
  if (c.shape.activation != AttentionActivation::kSoftmax) return;
  const std::int64_t tokens = c.lse.size() / c.shape.num_heads;
  for (std::int64_t i = 0; i < c.lse.size(); ++i) {
    const std::int64_t token = i % tokens;
    if (token < c.query_offsets.front() || token >= c.query_offsets.back()) {
      ASSERT_TRUE(std::isnan(c.lse[i]));
    } else if (expected[i] == -kInfinity) {
      ASSERT_EQ(c.lse[i], -kInfinity);
    } else {
      ASSERT_NEAR(c.lse[i], expected[i], tolerance);
    }
  }
}

// What a run left in c.
inline void expect_values(Case& c, const reference::AttentionOutput& output,
                          const reference::AttentionGradients& gradients, double tolerance) {
  expect_close(c.out, output.out, tolerance);
  expect_close(c.d_q, gradients.d_q, tolerance);
  expect_close(c.d_k, gradients.d_k, tolerance);
  expect_close(c.d_v, gradients.d_v, tolerance);
  expect_lse(c, output.lse, tolerance * 10);
}

inline void expect_values_of_reference(Case& c, double tolerance) {
  const reference::Attention args = c.in_double();
  expect_values(c, reference::attention_forward(args),
                reference::attention_backward(args, c.d_out.dense()), tolerance);
}

inline void expect_matches_reference(Case& c, double tolerance) {
  const reference::Attention args = c.in_double();
  const reference::AttentionOutput output = reference::attention_forward(args);
  const reference::AttentionGradients gradients =
      reference::attention_backward(args, c.d_out.dense());
  for_every_target(c.streams.stream.device(), [&] {
    c.run();
    expect_values(c, output, gradients, tolerance);
  });
}

inline std::vector<std::vector<float>> results(Case& c) {
  return {c.out.values.host(), c.d_q.values.host(), c.d_k.values.host(), c.d_v.values.host(),
          c.lse.host()};
}

inline void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

inline void expect_same_bits(const TestArray<float>& a, const TestArray<float>& b) {
  expect_same_bits(a.host(), b.host());
}

inline void expect_same_results(Case& a, Case& b) {
  const auto of_a = results(a), of_b = results(b);
  for (std::size_t i = 0; i < of_a.size(); ++i) expect_same_bits(of_a[i], of_b[i]);
}

}  // namespace serrate
