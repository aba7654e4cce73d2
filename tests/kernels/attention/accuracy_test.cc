// FlashAttention's rule: of each result, the largest error and its root mean square are at most
// twice those of unfused ops on the same inputs in the same storage, beside those of (x + 0.3) -
// 0.3.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "tests/kernels/attention/biases.h"
#include "tests/reference/unfused_attention.h"

namespace serrate {
namespace {

using reference::store;

struct Errors {
  double max = 0, sum_of_squares = 0;
  void add(double error) {
    max = std::max(max, std::abs(error));
    sum_of_squares += error * error;
  }
};

struct Expected {
  const std::vector<double>&exact, &unfused;
};

enum class Of { kPairs, kSumsOverPairs };

template <typename Values>
void expect_small_error(const std::string& name, const Values& actual, const Expected& expected,
                        DataType stored, Of of) {
  SCOPED_TRACE(name);
  ASSERT_EQ(actual.size(), expected.exact.size());
  Errors of_kernel, of_unfused, of_rounding;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double exact = expected.exact[i];
    of_kernel.add(actual[i] - exact);
    of_unfused.add(expected.unfused[i] - exact);
    const float above = store(static_cast<float>(exact) + 0.3f, stored);
    of_rounding.add(store(above - 0.3f, stored) - exact);
  }
  const bool is_half = stored != DataType::kFloat32;
  const double factor = is_half ? 2 : of == Of::kPairs ? 4 : 8;
  const double rms_factor = is_half || of == Of::kPairs ? 2 : 8;
  EXPECT_LE(of_kernel.max, factor * of_unfused.max + 2 * of_rounding.max);
  EXPECT_LE(std::sqrt(of_kernel.sum_of_squares), rms_factor * std::sqrt(of_unfused.sum_of_squares) +
                                                     std::sqrt(of_rounding.sum_of_squares));
}

enum class WithBiases { kNo, kYes };

// Halves are in rows as CUDA's tensor cores want them.
void expect_small_errors(Shape shape, DataType stored, WithBiases with_biases,
                         TestStreams& streams) {
  if (stored != DataType::kFloat32) shape.gaps = kAlignedGaps;
  Case c(shape, streams);
  StoredTokens q(c.q, stored), k(c.k, stored), v(c.v, stored), d_out(c.d_out, stored);
  StoredTokens out(c.out, stored), d_q(c.d_q, stored), d_k(c.d_k, stored), d_v(c.d_v, stored);
  std::optional<Biases> biases;
  if (with_biases == WithBiases::kYes) biases.emplace(c, [=](float x) { return store(x, stored); });
  const reference::Attention args = c.in_double();
  const auto exact = attention_forward(args);
  const auto exact_gradients = attention_backward(args, c.d_out.dense());
  const auto unfused = unfused_attention(args, c.d_out.dense(), stored);

  AttentionBackward call = c.backward_args();
  const Stream& stream = streams.threads(2);
  call.forward.q = q.on(stream), call.forward.k = k.on(stream), call.forward.v = v.on(stream);
  call.forward.out = out.on(stream), call.d_out = d_out.on(stream);
  call.d_q = d_q.on(stream), call.d_k = d_k.on(stream), call.d_v = d_v.on(stream);
  jagged_attention_forward(call.forward, stream);
  jagged_attention_backward(call, stream);
  for (StoredTokens* x : {&out, &d_q, &d_k, &d_v}) {
    x->load();
    EXPECT_TRUE(x->tokens.nothing_else_written());
  }
  const auto expect_of = [&](const std::string& name, Tokens& x,
                             const std::vector<double>& of_exact,
                             const std::vector<double>& of_unfused) {
    expect_small_error(name, x.dense(), {of_exact, of_unfused}, stored, Of::kPairs);
  };
  expect_of("out", c.out, exact.out, unfused.output.out);
  expect_of("d_q", c.d_q, exact_gradients.d_q, unfused.gradients.d_q);
  expect_of("d_k", c.d_k, exact_gradients.d_k, unfused.gradients.d_k);
  expect_of("d_v", c.d_v, exact_gradients.d_v, unfused.gradients.d_v);
  if (!biases) return;
  const auto of_exact = biases->gradients(c, exact_gradients.d_bias);
  const auto of_unfused = biases->gradients(c, unfused.gradients.d_bias);
  const std::span<const float> actual[] = {biases->d_bias.host(), c.d_position_table.host(),
                                           c.d_time_table.host()};
  for (std::size_t i = 0; i < 3; ++i) {
    expect_small_error(std::array{"d_bias", "d_position_table", "d_time_table"}[i], actual[i],
                       {of_exact[i], of_unfused[i]}, stored, Of::kSumsOverPairs);
  }
}

std::vector<std::int64_t> lengths() {
  return on_cpu_or_not<std::vector<std::int64_t>>({0, 1, 7, 63, 64, 65, 127, 128, 129}, {0, 1, 33});
}

class Accuracy : public KernelTestOver<std::tuple<DataType, std::int64_t>> {};

Shape every_pair_of(const std::vector<std::int64_t>& lengths, Shape shape) {
  for (const std::int64_t queries : lengths) {
    for (const std::int64_t keys : lengths) {
      shape.query_lengths.push_back(queries);
      shape.key_lengths.push_back(keys);
    }
  }
  return shape;
}

TEST_P(Accuracy, OfEveryPairOfLengths) {
  const auto [stored, head_dim] = param();
  for (const auto shape_of : {full_shape, causal_shape}) {
    expect_small_errors(every_pair_of(lengths(), shape_of({}, {}, 1, head_dim)), stored,
                        WithBiases::kNo, *this);
  }
}

TEST_P(Accuracy, OfBiasesTablesAndSharedKeys) {
  const auto [stored, head_dim] = param();
  for (const AttentionActivation activation :
       {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
    Shape shape = sized(causal_shape({130, 0, 65, 1}, {129, 7, 100, 64}, 4, head_dim));
    shape.num_key_heads = 2;
    shape.activation = activation;
    expect_small_errors(shape, stored, WithBiases::kYes, *this);
  }
}

std::string name_of(const testing::TestParamInfo<Accuracy::ParamType>& test) {
  const auto [stored, head_dim] = std::get<1>(test.param);
  return std::string(to_string(stored)) + "x" + std::to_string(head_dim);
}

INSTANTIATE_TEST_SUITE_P(
    All, Accuracy,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Combine(testing::Values(DataType::kFloat32, DataType::kBFloat16,
                                                      DataType::kFloat16),
                                      testing::ValuesIn(on_cpu_or_not<std::vector<std::int64_t>>(
                                          {32, 64, 128, 256}, {64})))),
    name_of);

class AccuracyOfLongSequences : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AccuracyOfLongSequences, testing::ValuesIn(test_devices()),
                         device_name);

// Every other length with one beyond two thousand.
TEST_P(AccuracyOfLongSequences, InPairsWithEveryLength) {
  const std::int64_t longest = on_cpu_or_not(2049, 130);
  Shape shape = causal_shape({longest}, {longest}, 1, 32);
  for (const std::int64_t length : lengths()) {
    shape.query_lengths.insert(shape.query_lengths.end(), {length, longest});
    shape.key_lengths.insert(shape.key_lengths.end(), {longest, length});
  }
  for (const DataType stored : {DataType::kFloat32, DataType::kBFloat16}) {
    expect_small_errors(shape, stored, WithBiases::kNo, *this);
  }
}

}  // namespace
}  // namespace serrate
