#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {
namespace {

constexpr std::int64_t kHeads = 2, kLongest = 150;
// Floats of the d_bias of all runs of sequences on tensor cores; sequences of which a warp takes
// one in each lane at a time.
constexpr std::int64_t kMostOfRuns = 1 << 20, kLanes = 32;

struct Layout {
  std::string name;
  AttentionBias strides;
};

constexpr std::int64_t kBlock = kLongest * kLongest;
const Layout kLayouts[] = {
    {"SequenceHeadQueryKey", {{}, kHeads* kBlock, kBlock, kLongest, 1}},
    {"SequenceKeyQuery", {{}, kBlock, 0, 1, kLongest}},
    {"SequenceHeadQuery", {{}, kHeads* kLongest, kLongest, 1, 0}},
    {"HeadQueryKey", {{}, 0, kBlock, kLongest, 1}},
    {"QueryKey", {{}, 0, 0, kLongest, 1}},
    {"Key", {{}, 0, 0, 0, 1}},
};

class EveryBias : public KernelTestOver<std::tuple<int, AttentionActivation>> {
 protected:
  // Calls f(place in the bias, pair).
  template <typename F>
  static void for_each_place(const Case& c, F&& f) {
    c.for_each_pair(
        [&](std::size_t pair, std::int64_t s, std::int64_t head, std::int64_t i, std::int64_t j) {
          f(s * c.bias.sequence_stride + head * c.bias.head_stride + i * c.bias.query_stride +
                j * c.bias.key_stride,
            pair);
        });
  }

  // A case of this activation and layout, for the shape's lengths.
  Case make_case(Shape shape) {
    const auto [layout, activation] = param();
    shape.activation = activation;
    Case c(shape, *this);
    c.bias = kLayouts[layout].strides;
    std::int64_t last = 0;
    for_each_place(c, [&](std::int64_t at, std::size_t) { last = std::max(last, at); });
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    bias_.resize(last + 1);
    for (float& x : bias_) x = normal(generator);
    c.bias.data = c.input(bias_);
    c.bias_of_pairs.resize(c.in_double().num_pairs(), 0.0);
    for_each_place(c,
                   [&](std::int64_t at, std::size_t pair) { c.bias_of_pairs[pair] = bias_[at]; });
    return c;
  }

  // What is added to 1.
  std::vector<double> expected_gradient(const Case& c, const std::vector<double>& of_pairs) const {
    std::vector<double> expected(bias_.size(), 1);
    for_each_place(c, [&](std::int64_t at, std::size_t pair) { expected[at] += of_pairs[pair]; });
    return expected;
  }

  std::vector<float> bias_;
};

TEST_P(EveryBias, MatchesTheReference) {
  Case c = make_case(sized(causal_shape({130, 7, 65}, {97, 40, kLongest}, kHeads, 16)));
  const std::vector<double> expected =
      expected_gradient(c, reference::attention_backward(c.in_double(), c.d_out.dense()).d_bias);
  expect_matches_reference(c, 2e-6);
  std::vector<float> of_one_thread;
  for (const int threads : on_cpu_or_not<std::vector<int>>({1, 2, 16}, {1})) {
    TestArray<float> d_bias(std::ssize(bias_), 1);
    c.d_bias = &d_bias;
    c.run(threads);
    expect_values_of_reference(c, 2e-6);
    for (std::size_t i = 0; i < bias_.size(); ++i) ASSERT_NEAR(d_bias[i], expected[i], 2e-5) << i;
    if (threads == 1) of_one_thread = d_bias.host();
    expect_same_bits(d_bias, of_one_thread);
  }
}

// Several tiles of queries and of keys, heads that share keys, and a sequence without queries. In
// one layout d_bias is so large that all sequences are one run, and more than a warp has lanes.
class BiasesOnTensorCores : public EveryBias {};

TEST_P(BiasesOnTensorCores, MatchTheReference) {
  const bool is_one_run = kLayouts[std::get<0>(param())].name == "HeadQueryKey";
  Shape shape = causal_shape({66, 7, 0}, {3, 70, 9}, kHeads, 32);
  for (auto* lengths : {&shape.query_lengths, &shape.key_lengths}) {
    if (is_one_run) lengths->insert(lengths->begin(), kLanes, 1);
  }
  shape.num_key_heads = 1;
  shape.gaps = kAlignedGaps;
  Case c = make_case(shape);
  std::vector<float> of_first_run;
  for (int run = 0; run < 2; ++run) {
    TestArray<float> d_bias(is_one_run ? kMostOfRuns : std::ssize(bias_), 1);
    c.d_bias = &d_bias;
    run_halves(c);
    std::vector<double> expected = expected_gradient(c, score_gradients(c));
    expected.resize(d_bias.size(), 1);
    expect_close(d_bias.host(), expected);
    if (run == 0) of_first_run = d_bias.host();
    expect_same_bits(d_bias, of_first_run);
  }
}

std::string name_of_bias(const testing::TestParamInfo<EveryBias::ParamType>& test) {
  const auto [layout, activation] = std::get<1>(test.param);
  return kLayouts[layout].name + (activation == AttentionActivation::kSilu ? "Silu" : "Softmax");
}

const auto kAllLayouts = testing::Range(0, static_cast<int>(std::size(kLayouts)));

INSTANTIATE_TEST_SUITE_P(
    All, EveryBias,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Combine(kAllLayouts, testing::Values(AttentionActivation::kSoftmax,
                                                                   AttentionActivation::kSilu))),
    name_of_bias);
INSTANTIATE_TEST_SUITE_P(
    All, BiasesOnTensorCores,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Combine(kAllLayouts, testing::Values(AttentionActivation::kSoftmax))),
    name_of_bias);

// A score of -infinity by its bias weighs nothing; a query that has no other sees no key.
class InfiniteBias : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, InfiniteBias, testing::ValuesIn(test_devices()), device_name);

TEST_P(InfiniteBias, Hides) {
  const std::int64_t queries = 100, keys = 130;
  Shape shape = full_shape({queries}, {keys}, 1, 16);
  const auto is_hidden = [](std::int64_t i, std::int64_t j) {
    return i < 2 || (i * 7 + j * 3) % 5 == 0 || (i % 10 == 0 && j < 97);
  };
  shape.visible = [=](std::int64_t, std::int64_t i, std::int64_t j) { return !is_hidden(i, j); };
  Case c(shape, *this);
  std::vector<float> bias(queries * keys);
  TestArray<float> d_bias(queries * keys);
  for (std::int64_t i = 0; i < queries; ++i) {
    for (std::int64_t j = 0; j < keys; ++j) bias[i * keys + j] = is_hidden(i, j) ? -kInfinity : 0;
  }
  c.bias = {c.input(bias), 0, 0, keys, 1};
  c.d_bias = &d_bias;
  c.run();
  expect_values_of_reference(c, 2e-6);
  for (std::int64_t j = 0; j < 2 * keys; ++j) EXPECT_EQ(d_bias[j], 0);
}

}  // namespace
}  // namespace serrate
