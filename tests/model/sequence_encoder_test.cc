#include "src/model/sequence_encoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/support/on_host.h"
#include "tests/support/test_array.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

constexpr std::int64_t kWidth = 8;

/// Three sequences of 3, 0 and 5 tokens with two features of random embeddings.
class SequenceEncoderTest : public testing::TestWithParam<Device> {
 protected:
  SequenceEncoderTest() {
    std::normal_distribution<float> normal;
    for (TestArray<float>* values : {&item_, &country_, &weights_}) {
      for (float& value : values->host()) value = normal(random_);
    }
  }

  std::int64_t num_tokens() const { return positions_.size(); }
  TokenBatch tokens() const {
    return {offsets_.on(stream_), positions_.on(stream_), token_ids_.on(stream_)};
  }
  DeviceMatrix<float> matrix(const TestArray<float>& values) const {
    return {values.on(stream_), num_tokens(), kWidth};
  }

  std::vector<float> forward(SequenceEncoder& encoder, std::int64_t step, EncoderMode mode) {
    const std::vector<DeviceMatrix<const float>> features{matrix(item_), matrix(country_)};
    return on_host(encoder.forward(features, tokens(), step, mode, stream_), stream_);
  }

  /// sum of weights * hidden: its gradient by hidden is `weights_`.
  double loss(SequenceEncoder& encoder) {
    const auto hidden = forward(encoder, 7, EncoderMode::kTrain);
    double sum = 0;
    for (std::int64_t i = 0; i < num_tokens() * kWidth; ++i) sum += weights_[i] * hidden[i];
    return sum;
  }

  /// Central difference of the loss by one float that the encoder reads, which is `before`.
  template <typename Set>
  double difference(SequenceEncoder& encoder, float before, const Set& set) {
    constexpr float kStep = 1e-2f;
    set(before + kStep);
    const double up = loss(encoder);
    set(before - kStep);
    const double down = loss(encoder);
    set(before);
    return (up - down) / (2 * kStep);
  }

  const Stream stream_{GetParam()};
  std::mt19937 random_{5};
  TestArray<std::int64_t> offsets_{0, 3, 3, 8}, positions_{0, 1, 2, 0, 1, 2, 3, 4},
      token_ids_{10, 11, 12, 30, 31, 32, 33, 34};
  TestArray<float> item_ = TestArray<float>(num_tokens() * kWidth), country_ = item_,
                   weights_ = item_;
};

/// What takes thousands of passes.
using SequenceEncoderGradients = SequenceEncoderTest;
INSTANTIATE_TEST_SUITE_P(Cpu, SequenceEncoderGradients, testing::Values(Device::cpu()),
                         device_name);
INSTANTIATE_TEST_SUITE_P(Devices, SequenceEncoderTest, testing::ValuesIn(test_devices()),
                         device_name);

SequenceModelOptions small_model(float dropout) {
  return {.dim = kWidth,
          .num_blocks = 2,
          .num_heads = 2,
          .feed_forward_dim = 12,
          .max_length = 5,
          .dropout = dropout,
          .features = {"country"}};
}

TEST_P(SequenceEncoderGradients, BackwardIsTheDerivativeOfForward) {
  for (const float dropout : {0.0f, 0.3f}) {
    SequenceEncoder encoder(small_model(dropout), 3, stream_);
    loss(encoder);
    TestArray<float> d_hidden = weights_, d_item(item_.size()), d_country(item_.size());
    const std::vector<DeviceMatrix<float>> d_features{matrix(d_item), matrix(d_country)};
    fill_zero(encoder.parameters().gradients(), stream_);
    encoder.backward(matrix(d_hidden), d_features, tokens(), stream_);

    const auto expect_close = [&](double expected, double actual, const std::string& what) {
      EXPECT_NEAR(expected, actual, 2e-2 + 1e-2 * std::abs(expected)) << what;
    };
    for (std::int64_t i = 0; i < item_.size(); ++i) {
      const auto set_in = [&](TestArray<float>& values) {
        return [&values, i](float value) { values[i] = value; };
      };
      expect_close(difference(encoder, item_[i], set_in(item_)), d_item[i],
                   "item " + std::to_string(i));
      expect_close(difference(encoder, country_[i], set_in(country_)), d_country[i],
                   "country " + std::to_string(i));
    }
    DenseParameters& parameters = encoder.parameters();
    const auto values = host_view(parameters.values(), stream_);
    const auto gradients = host_view(parameters.gradients(), stream_);
    for (const ParameterSlice& slice : parameters.slices()) {
      for (std::int64_t i = slice.offset; i < slice.offset + slice.size(); ++i) {
        const auto set = [&](float value) { values[i] = value; };
        expect_close(difference(encoder, values[i], set), gradients[i],
                     slice.name + " element " + std::to_string(i - slice.offset));
      }
    }
  }
}

TEST_P(SequenceEncoderTest, ASequenceDoesNotSeeTheRestOfTheBatchNorItsOwnFuture) {
  SequenceEncoder encoder(small_model(0.3f), 3, stream_);
  const std::vector<float> before = forward(encoder, 7, EncoderMode::kTrain);
  for (std::int64_t i = 0; i < kWidth; ++i) item_[7 * kWidth + i] += 1;  // the last token of all
  const std::vector<float> after = forward(encoder, 7, EncoderMode::kTrain);
  for (std::int64_t i = 0; i < 7 * kWidth; ++i) EXPECT_EQ(before[i], after[i]) << i;
  EXPECT_NE(before[7 * kWidth], after[7 * kWidth]);
}

TEST_P(SequenceEncoderTest, StartsWithNoTokens) {
  SequenceEncoder encoder(small_model(0.3f), 3, stream_);
  const Buffer<std::int64_t> offsets(std::vector<std::int64_t>{0, 0}, stream_);
  const TokenBatch none{offsets.span(), {}, {}};
  const DeviceMatrix<float> no_rows(DeviceSpan<float>(), 0, kWidth);
  const std::vector<DeviceMatrix<const float>> features{no_rows, no_rows};
  const std::vector<DeviceMatrix<float>> d_features{no_rows, no_rows};
  fill_zero(encoder.parameters().gradients(), stream_);
  EXPECT_EQ(encoder.forward(features, none, 1, EncoderMode::kTrain, stream_).rows, 0);
  encoder.backward(no_rows, d_features, none, stream_);
  EXPECT_EQ(on_host(encoder.parameters().gradients(), stream_),
            std::vector<float>(encoder.parameters().size(), 0.0f));
}

TEST_P(SequenceEncoderTest, DropoutIsForTrainingAndChangesWithTheStep) {
  SequenceEncoder encoder(small_model(0.5f), 3, stream_);
  const auto run = [&](std::int64_t step, EncoderMode mode) {
    return forward(encoder, step, mode);
  };
  EXPECT_EQ(run(1, EncoderMode::kTrain), run(1, EncoderMode::kTrain));
  EXPECT_NE(run(1, EncoderMode::kTrain), run(2, EncoderMode::kTrain));
  EXPECT_EQ(run(1, EncoderMode::kEvaluate), run(2, EncoderMode::kEvaluate));
}

// In bf16, which a GPU has, products take copies of them.
TEST_P(SequenceEncoderTest, EveryForwardTakesTheWeightsThatThereAre) {
  SequenceModelOptions options = small_model(0);
  if (tests_run_on_devices()) options.precision = Precision::kBf16;
  SequenceEncoder encoder(options, 3, stream_), other(options, 4, stream_);
  const std::vector<float> before = forward(encoder, 1, EncoderMode::kEvaluate);
  copy<float>(other.parameters().values(), encoder.parameters().values(), stream_);
  const std::vector<float> after = forward(encoder, 1, EncoderMode::kEvaluate);
  EXPECT_NE(after, before);
  EXPECT_EQ(after, forward(other, 1, EncoderMode::kEvaluate));

  DenseParameters& parameters = encoder.parameters();
  copy<float>(parameters.values(), parameters.gradients(), stream_);
  forward(encoder, 1, EncoderMode::kEvaluate);
  parameters.update({.learning_rate = 0.1f}, 1, stream_);
  const std::vector<float> updated = forward(encoder, 1, EncoderMode::kEvaluate);
  EXPECT_NE(updated, after);
  copy<float>(parameters.values(), other.parameters().values(), stream_);
  EXPECT_EQ(updated, forward(other, 1, EncoderMode::kEvaluate));
}

TEST(DenseParametersTest, StartsAsLaidOutAndDecaysMatricesOnly) {
  const Stream stream;
  DenseParameters parameters(
      {{.name = "matrix", .rows = 2, .cols = 3, .init = Init::kUniform, .scale = 0.5f},
       {.name = "gamma", .rows = 1, .cols = 2, .init = Init::kOne, .decays = false}},
      Precision::kFp32, 1, stream);
  EXPECT_EQ(parameters.size(), 16);  // the second begins at 8
  const auto values = host_view(parameters.values(), stream);
  const auto gamma = host_view(parameters.value(1).flat(), stream);
  for (std::int64_t i = 0; i < 6; ++i) EXPECT_LE(std::abs(values[i]), 0.5f);
  EXPECT_NE(values[0], values[1]);
  EXPECT_EQ(gamma[0], 1.0f);
  const float matrix_before = values[0];
  // Without gradients the step is the decay alone: w -= lr * weight_decay * w.
  parameters.update({.learning_rate = 0.1f, .weight_decay = 0.5f}, 1, stream);
  EXPECT_FLOAT_EQ(values[0], matrix_before * 0.95f);
  EXPECT_EQ(gamma[0], 1.0f);
}

}  // namespace
}  // namespace serrate
