#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "tests/kernels/attention/biases.h"

namespace serrate {
namespace {

using Lengths = std::vector<std::int64_t>;

// Around the sizes of tiles.
const auto kLengths =
    on_cpu_or_not<Lengths>({0, 1, 7, 63, 64, 65, 127, 128, 129, 200}, {0, 1, 32, 33});

class Attention : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, Attention, testing::ValuesIn(test_devices()), device_name);

// Every length of queries with every length of keys.
TEST_P(Attention, AllPairsOfLengthsMatchTheReference) {
  for (const bool is_causal : {false, true}) {
    Shape shape = is_causal ? causal_shape({}, {}, 1, 16) : full_shape({}, {}, 1, 16);
    for (const std::int64_t queries : kLengths) {
      for (const std::int64_t keys : kLengths) {
        shape.query_lengths.push_back(queries);
        shape.key_lengths.push_back(keys);
      }
    }
    Case c(shape, *this);
    expect_matches_reference(c, 2e-6);
  }
}

TEST_P(Attention, MoreThanTwoThousandTokensMatchTheReference) {
  Case c(causal_shape({on_cpu_or_not(2049, 260)}, {on_cpu_or_not(2051, 262)}, 1, 2), *this);
  expect_matches_reference(c, 5e-6);
}

TEST_P(Attention, HeadsAndDimensionsMatchTheReference) {
  const std::pair<std::int64_t, std::int64_t> sizes[] = {{4, 8},   {3, 32},  {2, 50}, {2, 64},
                                                         {1, 128}, {1, 255}, {1, 256}};
  for (const auto& [num_heads, head_dim] : sizes) {
    Case causal(sized(causal_shape({1, 129, 0, 65}, {7, 129, 3, 30}, num_heads, head_dim)), *this);
    expect_matches_reference(causal, 4e-6);
    Case full(sized(full_shape({64, 5}, {100, 127}, num_heads, head_dim)), *this);
    expect_matches_reference(full, 4e-6);
  }
}

TEST_P(Attention, OddDimensionsMatchTheReference) {
  for (const std::int64_t head_dim : {1, 3, 17}) {
    Case c(causal_shape({5, 70, 0, 33}, {9, 70, 4, 2}, 2, head_dim), *this);
    expect_matches_reference(c, 2e-6);
  }
}

TEST_P(Attention, AQueryBetweenTwoKeysAveragesTheirValues) {
  Case c(full_shape({1}, {2}, 1, 1), *this);
  c.scale = 1;
  c.q.for_each([](float& x, std::int64_t) { x = std::log(3.0f); });
  float next = 0;
  for (Tokens* x : {&c.k, &c.v}) x->for_each([&](float& value, std::int64_t) { value = next++; });
  c.run();
  // Weights 1/4 and 3/4 of the values 2 and 3.
  const std::int64_t token = kTokensBefore;
  EXPECT_FLOAT_EQ(*c.out.at(token, 0), 2.75f);
  EXPECT_FLOAT_EQ(c.lse[token], std::log(4.0f));
}

TEST_P(Attention, HugeLogitsNeitherOverflowNorVanish) {
  for (const auto shape : {full_shape, causal_shape}) {
    Case c(sized(shape({130, 5}, {130, 77}, 2, 32)), *this, 1e4f);
    const reference::AttentionOutput expected = reference::attention_forward(c.in_double());
    c.run();
    expect_close(c.out, expected.out, 5e-3);  // a score of 2e4 is good to 1e-3
    for (Tokens* x : {&c.d_q, &c.d_k, &c.d_v}) EXPECT_TRUE(x->nothing_else_written());
  }
}

TEST_P(Attention, KeysThatAttendToNothingGetNoGradient) {
  Case c(causal_shape({0, 2}, {3, 6}, 2, 16), *this);
  c.run();
  const std::vector<std::int64_t>& offsets = c.key_offsets;
  for (Tokens* x : {&c.d_k, &c.d_v}) {
    for (std::int64_t token = offsets[0]; token < offsets[2]; ++token) {
      const bool seen = token == offsets[1] || token == offsets[1] + 1;
      for (std::int64_t i = 0; i < 16; ++i) {
        EXPECT_EQ(x->at(token, 1)[i] != 0, seen);
      }
    }
  }
}

TEST_P(Attention, BitsOfASequenceDoNotDependOnTheRestOfTheBatch) {
  const std::int64_t length = on_cpu_or_not(150, 40);
  Case batch(Shape{{20, length, 70}, {20, length, 33}, 2, 32}, *this);
  batch.run(2);
  Case alone(Shape{{length}, {length}, 2, 32}, *this);
  const std::pair<Tokens*, Tokens*> inputs[] = {{&batch.q, &alone.q},
                                                {&batch.k, &alone.k},
                                                {&batch.v, &alone.v},
                                                {&batch.d_out, &alone.d_out}};
  for (const auto& [source, to] : inputs) {
    to->for_each([&, from = source](float& x, std::int64_t i) {
      x = from->at(i / 64 + 20, i / 32 % 2)[i % 32];
    });
  }
  alone.run();
  const std::pair<Tokens*, Tokens*> outputs[] = {{&batch.out, &alone.out},
                                                 {&batch.d_q, &alone.d_q},
                                                 {&batch.d_k, &alone.d_k},
                                                 {&batch.d_v, &alone.d_v}};
  for (const auto& [together, on_its_own] : outputs) {
    on_its_own->for_each([&, in_batch = together](float& x, std::int64_t i) {
      ASSERT_EQ(x, in_batch->at(i / 64 + 20, i / 32 % 2)[i % 32]);
    });
  }
}

TEST(AttentionThreads, DoNotChangeBits) {
  if (tests_run_on_devices()) GTEST_SKIP() << "attention_test has it";
  TestStreams host(Device::cpu());
  Shape shape{{300, 1, 64, 0, 129, 700, 5}, {300, 9, 64, 3, 129, 700, 0}, 4, 32};
  for (const std::int64_t head_dim : {20, 32}) {
    for (const std::int64_t num_key_heads : {2, 4}) {
      shape.head_dim = head_dim, shape.num_key_heads = num_key_heads;
      Case one(shape, host);
      one.run();
      for (const int threads : {2, 3, 16}) {  // by 16, sequences of 300 and 700 are cut
        Case many(shape, host);
        many.run(threads);
        expect_same_results(one, many);
      }
    }
  }
}

TEST_P(Attention, EmptyBatchesAndEmptySequencesDoNothing) {
  for (const std::size_t batch_size : {0, 3}) {
    const std::vector<std::int64_t> none(batch_size, 0);
    Case c(causal_shape(none, none, 2, 16), *this);
    c.run(2);
    for (Tokens* x : {&c.out, &c.d_q, &c.d_k, &c.d_v}) EXPECT_TRUE(x->nothing_else_written());
  }
}

// The reference's backward, which the kernels are held against, is the derivative of its forward.
template <typename Loss>
void expect_derivative(std::vector<double>& input, const std::vector<double>& gradient,
                       Loss&& loss) {
  ASSERT_EQ(input.size(), gradient.size());
  for (std::size_t i = 0; i < input.size(); ++i) {
    const double kept = input[i], step = 1e-5;
    input[i] = kept + step;
    const double above = loss();
    input[i] = kept - step;
    const double below = loss();
    input[i] = kept;
    ASSERT_NEAR(gradient[i], (above - below) / (2 * step), 1e-8);
  }
}

double loss_of(const reference::Attention& args, const std::vector<double>& d_out) {
  const std::vector<double> out = reference::attention_forward(args).out;
  return std::inner_product(out.begin(), out.end(), d_out.begin(), 0.0);
}

void expect_derivatives(reference::Attention& args, const std::vector<double>& d_out) {
  const reference::AttentionGradients gradients = reference::attention_backward(args, d_out);
  const auto loss = [&] { return loss_of(args, d_out); };
  expect_derivative(args.q, gradients.d_q, loss);
  expect_derivative(args.k, gradients.d_k, loss);
  expect_derivative(args.v, gradients.d_v, loss);
  expect_derivative(args.bias, gradients.d_bias, loss);
}

TEST(AttentionReference, BackwardIsTheDerivativeOfTheForward) {
  TestStreams host(Device::cpu());
  Shape shape = causal_shape({3, 0, 5}, {4, 2, 5}, 4, 3);
  shape.num_key_heads = 2;
  for (const double silu_divisor : {0.0, 3.0}) {
    Case c(shape, host);
    reference::Attention args = c.in_double();
    args.silu_divisor = silu_divisor;
    expect_derivatives(args, c.d_out.dense());
    for (std::size_t pair = 0; pair < args.num_pairs(); ++pair) {
      args.bias.push_back(std::sin(static_cast<double>(pair)));
      args.kept.push_back(pair % 3 == 0 ? 0 : 1.5);
    }
    expect_derivatives(args, c.d_out.dense());
  }
}

TEST(AttentionReference, BiasesAndTablesHaveTheGradientsOfTheirPairs) {
  TestStreams host(Device::cpu());
  Shape shape = causal_shape({5, 0, 7}, {6, 2, 7}, 2, 3);
  for (const double silu_divisor : {0.0, 3.0}) {
    Case c(shape, host);
    Biases biases(c);
    reference::Attention args = c.in_double();
    args.silu_divisor = silu_divisor;
    const std::vector<double> d_out = c.d_out.dense();
    const auto gradients = biases.gradients(c, reference::attention_backward(args, d_out).d_bias);
    std::vector<double> bias(biases.bias.begin(), biases.bias.end());
    std::vector<double> by_place(biases.by_place.begin(), biases.by_place.end());
    std::vector<double> by_time(biases.by_time.begin(), biases.by_time.end());
    const auto loss = [&] {
      biases.for_each_pair(
          c, [&](std::size_t pair, std::size_t at, std::size_t place, std::size_t time) {
            args.bias[pair] = bias[at] + by_place[place] + by_time[time];
          });
      return loss_of(args, d_out);
    };
    expect_derivative(bias, gradients[0], loss);
    expect_derivative(by_place, gradients[1], loss);
    expect_derivative(by_time, gradients[2], loss);
  }
}

TEST(AttentionReference, SharedQueriesHaveTheSumOfTheGradientsOfTheirCopies) {
  TestStreams host(Device::cpu());
  constexpr std::int64_t kSequences = 3, kQueries = 4;
  Case c(full_shape(std::vector<std::int64_t>(kSequences, kQueries), {6, 0, 3}, 2, 3), host);
  reference::Attention args = c.in_double();
  const std::int64_t size = kQueries * 2 * 3, first = kTokensBefore * 2 * 3;
  std::vector<double> shared(args.q.begin() + first, args.q.begin() + first + size), sum(size);
  const auto loss = [&] {
    for (std::int64_t s = 0; s < kSequences; ++s) {
      std::ranges::copy(shared, args.q.begin() + first + s * size);
    }
    return loss_of(args, c.d_out.dense());
  };
  loss();
  const std::vector<double> d_q = reference::attention_backward(args, c.d_out.dense()).d_q;
  for (std::int64_t i = 0; i < kSequences * size; ++i) sum[i % size] += d_q[first + i];
  expect_derivative(shared, sum, loss);
}

}  // namespace
}  // namespace serrate
