#include "serrate/bfloat16.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/attention_case.h"

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

// A case's tokens as bfloat16, in a row for every token and head.
struct Half {
  std::int64_t num_heads, head_dim;
  std::vector<BFloat16> values;

  explicit Half(Tokens& x)
      : num_heads(x.num_heads),
        head_dim(x.head_dim),
        values((x.end + kTokensAfter) * num_heads * head_dim) {
    x.for_each([&](float& value, std::int64_t i) {
      values[i] = BFloat16(value);
      value = static_cast<float>(values[i]);
    });
  }
  HeadsView<BFloat16> view() { return {values.data(), num_heads * head_dim, head_dim}; }
};

void expect_near(Tokens& shape_of, Half& actual, const std::vector<double>& expected) {
  double largest = 0;
  for (const double x : expected) largest = std::max(largest, std::abs(x));
  double worst = 0;
  shape_of.for_each([&](float&, std::int64_t i) {
    worst = std::max(worst, std::abs(static_cast<float>(actual.values[i]) - expected[i]));
  });
  EXPECT_LE(worst, largest * 0x1p-8);
}

// Each result is off by its own rounding, and gradients by that of out.
TEST(AttentionBFloat16, MatchesTheReferenceOfTheRoundedInputs) {
  for (const AttentionActivation activation :
       {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
    for (const std::int64_t head_dim : {20, 64}) {
      Shape shape = causal_shape({130, 0, 97, 30, 3}, {150, 5, 97, 7, 0}, 4, head_dim);
      shape.num_key_heads = 2;
      shape.activation = activation;
      Case c(shape);
      Half q(c.q), k(c.k), v(c.v), d_out(c.d_out), out(c.out), d_q(c.d_q), d_k(c.d_k), d_v(c.d_v);
      const reference::Attention args = c.in_double();
      const reference::AttentionOutput output = reference::attention_forward(args);
      const reference::AttentionGradients gradients =
          reference::attention_backward(args, c.d_out.dense());
      AttentionForward forward = c.forward_args();
      forward.q = q.view(), forward.k = k.view(), forward.v = v.view(), forward.out = out.view();
      for_every_target([&] {
        const Stream stream(Device::cpu(), 16);
        jagged_attention_forward(forward, stream);
        jagged_attention_backward({forward, d_out.view(), d_q.view(), d_k.view(), d_v.view()},
                                  stream);
        expect_near(c.q, out, output.out);
        expect_near(c.q, d_q, gradients.d_q);
        expect_near(c.k, d_k, gradients.d_k);
        expect_near(c.k, d_v, gradients.d_v);
      });
    }
  }
}

}  // namespace
}  // namespace serrate
