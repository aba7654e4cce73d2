#include "serrate/bfloat16.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/attention/case.h"

namespace serrate {
namespace {

float rounded(float x) {
  return static_cast<float>(BFloat16(x));
}

TEST(BFloat16, RoundsToNearestAndHalvesToEven) {
  EXPECT_EQ(rounded(1), 1);
  EXPECT_EQ(rounded(1 + 0x1p-8f), 1);            // half-way down to even
  EXPECT_EQ(rounded(1 + 0x3p-8f), 1 + 0x1p-6f);  // half-way up to even
  EXPECT_EQ(rounded(1 + 0x1.01p-8f), 1 + 0x1p-7f);
  EXPECT_EQ(rounded(-3.4e38f), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(rounded(std::nanf(""))));
}

void expect_near(Tokens& actual, const std::vector<double>& expected, double tolerance) {
  double largest = 0;
  for (const double x : expected) largest = std::max(largest, std::abs(x));
  double worst = 0;
  EXPECT_TRUE(actual.nothing_else_written());
  actual.for_each(
      [&](float& x, std::int64_t i) { worst = worse_of(worst, std::abs(x - expected[i])); });
  EXPECT_LE(worst, largest * tolerance);
}

using Types = std::array<DataType, 8>;

// Each result is off by its own rounding, and gradients by that of out.
void expect_reference_of_rounded_inputs(const Shape& shape, const Types& types,
                                        TestStreams& streams) {
  Case c(shape, streams);
  StoredTokens q(c.q, types[0]), k(c.k, types[1]), v(c.v, types[2]), d_out(c.d_out, types[3]);
  StoredTokens out(c.out, types[4]), d_q(c.d_q, types[5]), d_k(c.d_k, types[6]);
  StoredTokens d_v(c.d_v, types[7]);
  const double tolerance = std::ranges::count(types, DataType::kBFloat16) > 0 ? 0x1p-8 : 0x1p-11;
  const reference::Attention args = c.in_double();
  const reference::AttentionOutput output = reference::attention_forward(args);
  const reference::AttentionGradients gradients =
      reference::attention_backward(args, c.d_out.dense());
  for_every_target(streams.stream.device(), [&] {
    const Stream& stream = streams.threads(2);
    AttentionForward forward = c.forward_args();
    forward.q = q.on(stream), forward.k = k.on(stream), forward.v = v.on(stream);
    forward.out = out.on(stream);
    jagged_attention_forward(forward, stream);
    jagged_attention_backward(
        {forward, d_out.on(stream), d_q.on(stream), d_k.on(stream), d_v.on(stream)}, stream);
    for (StoredTokens* x : {&out, &d_q, &d_k, &d_v}) x->load();
    expect_near(c.out, output.out, tolerance);
    expect_near(c.d_q, gradients.d_q, tolerance);
    expect_near(c.d_k, gradients.d_k, tolerance);
    expect_near(c.d_v, gradients.d_v, tolerance);
  });
}

class AttentionHalves : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionHalves, testing::ValuesIn(test_devices()), device_name);

TEST_P(AttentionHalves, MatchTheReferenceOfTheRoundedInputs) {
  for (const AttentionActivation activation :
       {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
    for (const std::int64_t head_dim : {20, 64}) {
      Shape shape = sized(causal_shape({130, 0, 97, 30, 3}, {150, 5, 97, 7, 0}, 4, head_dim));
      shape.num_key_heads = 2;
      shape.activation = activation;
      for (const DataType half : {DataType::kBFloat16, DataType::kFloat16}) {
        SCOPED_TRACE(to_string(half));
        Types types;
        types.fill(half);
        expect_reference_of_rounded_inputs(shape, types, *this);
      }
    }
  }
}

TEST_P(AttentionHalves, EveryTensorMayHaveATypeOfItsOwn) {
  Shape shape = sized(causal_shape({130, 0, 1, 6}, {110, 5, 97, 200}, 4, 20));
  shape.num_key_heads = 2;
  constexpr int kAll = 6561;  // 3^8
  for (int number = 1; number < kAll; number += on_cpu_or_not(281, 1093)) {
    SCOPED_TRACE(number);
    Types types;
    int digits = number;
    for (DataType& type : types) type = static_cast<DataType>(digits % 3), digits /= 3;
    expect_reference_of_rounded_inputs(shape, types, *this);
  }
}

// Few queries over long histories, which are cut into chunks.
TEST_P(AttentionHalves, OfFewQueriesMatchTheReferenceOfTheRoundedInputs) {
  for (const auto& [head_dim, half] : {std::pair<std::int64_t, DataType>{20, DataType::kBFloat16},
                                       {64, DataType::kBFloat16},
                                       {64, DataType::kFloat16}}) {
    Shape shape = full_shape(
        {2, 7, 1, 5}, {on_cpu_or_not(1700, 567), on_cpu_or_not(900, 300), 130, 0}, 4, head_dim);
    shape.num_key_heads = 2;
    Case c(shape, *this);
    StoredTokens q(c.q, half), k(c.k, half), v(c.v, half), out(c.out, half);
    const reference::AttentionOutput expected = reference::attention_forward(c.in_double());
    for_every_target(stream.device(), [&] {
      AttentionForward args = c.forward_args();
      args.q = q.on(stream), args.k = k.on(stream), args.v = v.on(stream);
      args.out = out.on(stream);
      jagged_attention_forward(args, threads(2));
      out.load();
      expect_near(c.out, expected.out, 0x1p-8);
    });
  }
}

// Infinities, NaN, subnormals and what lies half-way, in vectors and one by one.
TEST_P(AttentionHalves, RoundAsFloat16Does) {
  Case c(causal_shape({1}, {1}, 1, 70), *this);
  const float values[] = {65519,      65520,     -1e6f,        0x1p-25f,     0x1.8p-24f,
                          0x1.7p-14f, -0x1p-14f, 1 + 0x1p-11f, 1 + 0x3p-11f, -0.0f};
  c.v.for_each([&](float& x, std::int64_t i) { x = values[i % 10]; });
  StoredTokens out(c.out, DataType::kFloat16);
  for_every_target(stream.device(), [&] {
    AttentionForward args = c.forward_args();
    args.out = out.on(stream);
    jagged_attention_forward(args, stream);
    out.load();
    c.out.for_each([&](float& x, std::int64_t i) {
      ASSERT_EQ(x, static_cast<float>(Float16(values[i % 10]))) << values[i % 10];
    });
  });
}

}  // namespace
}  // namespace serrate
