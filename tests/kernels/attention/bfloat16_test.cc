#include "serrate/bfloat16.h"

#include <gtest/gtest.h>

#include <algorithm>
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

void expect_near(Tokens& actual, const std::vector<double>& expected) {
  double largest = 0;
  for (const double x : expected) largest = std::max(largest, std::abs(x));
  double worst = 0;
  actual.for_each(
      [&](float& x, std::int64_t i) { worst = std::max(worst, std::abs(x - expected[i])); });
  EXPECT_LE(worst, largest * 0x1p-8);
}

// Each result is off by its own rounding, and gradients by that of out. Every tensor may have a
// type of its own: bit i of `half` is that of tensor i.
void expect_reference_of_rounded_inputs(const Shape& shape, unsigned half, TestStreams& streams) {
  Case c(shape, streams);
  unsigned next = 0;
  const auto stored = [&](Tokens& x) {
    return StoredTokens(x, half >> next++ & 1 ? DataType::kBFloat16 : DataType::kFloat32);
  };
  StoredTokens q = stored(c.q), k = stored(c.k), v = stored(c.v), d_out = stored(c.d_out);
  StoredTokens out = stored(c.out), d_q = stored(c.d_q), d_k = stored(c.d_k), d_v = stored(c.d_v);
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
    for (StoredTokens* x : {&out, &d_q, &d_k, &d_v}) {
      x->load();
      EXPECT_TRUE(x->tokens.nothing_else_written());
    }
    expect_near(c.out, output.out);
    expect_near(c.d_q, gradients.d_q);
    expect_near(c.d_k, gradients.d_k);
    expect_near(c.d_v, gradients.d_v);
  });
}

class AttentionBFloat16 : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionBFloat16, testing::ValuesIn(test_devices()), device_name);

TEST_P(AttentionBFloat16, MatchesTheReferenceOfTheRoundedInputs) {
  for (const AttentionActivation activation :
       {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
    for (const std::int64_t head_dim : {20, 64}) {
      Shape shape = sized(causal_shape({130, 0, 97, 30, 3}, {150, 5, 97, 7, 0}, 4, head_dim));
      shape.num_key_heads = 2;
      shape.activation = activation;
      expect_reference_of_rounded_inputs(shape, ~0u, *this);
    }
  }
}

TEST_P(AttentionBFloat16, EveryTensorMayHaveATypeOfItsOwn) {
  Shape shape = sized(causal_shape({130, 0, 1, 6}, {110, 5, 97, 200}, 4, 20));
  shape.num_key_heads = 2;
  for (unsigned half = 1; half < 255; half += on_cpu_or_not(11u, 43u)) {
    SCOPED_TRACE(half);
    expect_reference_of_rounded_inputs(shape, half, *this);
  }
}

}  // namespace
}  // namespace serrate
