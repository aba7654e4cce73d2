#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/kernels/attention/case.h"

namespace serrate {
namespace {

constexpr std::int64_t kSequences = 3, kHeads = 2, kLongest = 150;

struct Layout {
  std::string name;
  AttentionBias strides;
};

constexpr std::int64_t kBlock = kLongest * kLongest;
const Layout kLayouts[] = {
    {"SequenceHeadQueryKey", {{}, kHeads* kBlock, kBlock, kLongest, 1}},
    {"SequenceKeyQuery", {{}, kBlock, 0, 1, kLongest}},
    {"HeadQueryKey", {{}, 0, kBlock, kLongest, 1}},
    {"QueryKey", {{}, 0, 0, kLongest, 1}},
    {"Key", {{}, 0, 0, 0, 1}},
};

class EveryBias : public KernelTestOver<std::tuple<int, AttentionActivation>> {};

TEST_P(EveryBias, MatchesTheReference) {
  const auto [layout, activation] = param();
  Shape shape = sized(causal_shape({130, 7, 65}, {97, 40, kLongest}, kHeads, 16));
  shape.activation = activation;
  Case c(shape, *this);
  reference::Attention args = c.in_double();
  c.bias = kLayouts[layout].strides;
  const auto place = [&](std::int64_t s, std::int64_t head, std::int64_t i, std::int64_t j) {
    return s * c.bias.sequence_stride + head * c.bias.head_stride + i * c.bias.query_stride +
           j * c.bias.key_stride;
  };
  const auto for_each_pair = [&](auto&& f) {
    c.for_each_pair([&](std::size_t pair, std::int64_t s, std::int64_t head, std::int64_t i,
                        std::int64_t j) { f(place(s, head, i, j), pair); });
  };
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> bias(
      static_cast<std::size_t>(place(kSequences - 1, kHeads - 1, kLongest - 1, kLongest - 1) + 1));
  for (float& x : bias) x = normal(generator);
  c.bias.data = c.input(bias);
  args.bias.resize(args.num_pairs(), 0.0);
  for_each_pair([&](std::int64_t at, std::size_t pair) { args.bias[pair] = bias[at]; });
  c.bias_of_pairs = args.bias;

  const reference::AttentionGradients gradients =
      reference::attention_backward(args, c.d_out.dense());
  std::vector<double> expected(bias.size(), 1);
  for_each_pair([&](std::int64_t at, std::size_t pair) { expected[at] += gradients.d_bias[pair]; });
  expect_matches_reference(c, 2e-6);
  std::vector<float> of_one_thread;
  for (const int threads : on_cpu_or_not<std::vector<int>>({1, 2, 16}, {1})) {
    TestArray<float> d_bias(std::ssize(bias), 1);
    c.d_bias = &d_bias;
    c.run(threads);
    expect_values_of_reference(c, 2e-6);
    for (std::size_t i = 0; i < bias.size(); ++i) ASSERT_NEAR(d_bias[i], expected[i], 2e-5) << i;
    if (threads == 1) of_one_thread = d_bias.host();
    expect_same_bits(d_bias, of_one_thread);
  }
}

std::string name_of(const testing::TestParamInfo<EveryBias::ParamType>& test) {
  const auto [layout, activation] = std::get<1>(test.param);
  return kLayouts[layout].name + (activation == AttentionActivation::kSilu ? "Silu" : "Softmax");
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryBias,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Combine(testing::Range(0, 5),
                                      testing::Values(AttentionActivation::kSoftmax,
                                                      AttentionActivation::kSilu))),
    name_of);

}  // namespace
}  // namespace serrate
