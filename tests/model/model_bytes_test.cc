#include "src/model/model_bytes.h"

#include <gtest/gtest.h>

#include <vector>

#include "src/model/item_head.h"
#include "src/model/sequence_encoder.h"
#include "tests/support/test_array.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class ModelBytes : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, ModelBytes, testing::ValuesIn(test_devices()), device_name);

TEST_P(ModelBytes, AreWhatEncoderAndHeadAllocate) {
  constexpr std::int64_t kTokens = 48, kNegatives = 20;
  std::vector<SequenceModelOptions> models{
      {.dim = 8, .num_blocks = 2, .num_heads = 2, .max_length = 16},
      {.dim = 12,
       .num_blocks = 1,
       .num_heads = 3,
       .feed_forward_dim = 20,
       .max_length = 9,
       .l2_normalize = true},
      {.dim = 13, .num_blocks = 2, .num_heads = 1, .feed_forward_dim = 11, .max_length = 9},
      {.dim = 8,
       .num_blocks = 2,
       .num_heads = 2,
       .max_length = 16,
       .activation = Activation::kGeluTanh},
      {.dim = 8,
       .num_blocks = 2,
       .num_heads = 2,
       .max_length = 16,
       .activation = Activation::kRelu}};
  for (SequenceModelOptions& options : models) {
    if (tests_run_on_devices()) options.precision = Precision::kBf16;
  }
  for (const SequenceModelOptions& options : models) {
    SequenceEncoder encoder(options, 1, stream);
    ItemHead head(options);
    EXPECT_EQ(parameter_bytes(options), 4 * encoder.parameters().size());

    TestArray<std::int64_t> ids(kTokens), positions(kTokens), offsets{0};
    for (std::int64_t i = 0; i < kTokens; ++i) ids[i] = i, positions[i] = i % 8;
    for (std::int64_t end = 8; end <= kTokens; end += 8) offsets.host().push_back(end);
    const TokenBatch tokens{offsets.on(stream), positions.on(stream), ids.on(stream)};
    const std::int64_t dim = options.dim;
    const TestArray<float> rows(kTokens * dim, 0.5f), d_rows(kTokens * dim);
    const TestArray<float> d_hidden(kTokens * dim), d_targets(kTokens * dim),
        d_negatives(kNegatives * dim);
    const TestArray<double> loss(1);
    const DeviceMatrix<const float> inputs = DeviceMatrix<float>(rows.on(stream), kTokens, dim);
    const DeviceMatrix<float> d_hidden_view{d_hidden.on(stream), kTokens, dim};
    const auto hidden = encoder.forward({&inputs, 1}, tokens, 1, EncoderMode::kTrain, stream);
    head.forward_backward({.hidden = hidden,
                           .targets = inputs,
                           .negatives = inputs.middle_rows(0, kNegatives),
                           .target_ids = tokens.token_ids,
                           .negative_ids = tokens.token_ids.first(kNegatives),
                           .d_hidden = d_hidden_view,
                           .d_targets = {d_targets.on(stream), kTokens, dim},
                           .d_negatives = {d_negatives.on(stream), kNegatives, dim}},
                          loss.on(stream), stream);
    const DeviceMatrix<float> d_inputs{d_rows.on(stream), kTokens, dim};
    encoder.backward(d_hidden_view, {&d_inputs, 1}, tokens, stream);
    // d_hidden is the caller's, who has a quarter more of it too.
    const std::int64_t held =
        encoder.activation_bytes() + head.activation_bytes() + kTokens * dim * 5;
    const std::int64_t predicted = activation_bytes(options, kTokens, kNegatives);
    if (options.activation == Activation::kRelu) {  // of which a GPU keeps less
      EXPECT_LE(held, predicted);
    } else {
      EXPECT_NEAR(static_cast<double>(predicted), static_cast<double>(held),
                  0.01 * static_cast<double>(held));
    }
  }
}

// By hand: 528 chunks of 64 rows more for the tokens and for the negatives; 64 parts of the tokens,
// of each of which there is a sum for each position.
TEST(GpuWorkspaceBytes, AreThoseOfTheHeadOrOfPositions) {
  SequenceModelOptions options{.dim = 16, .max_length = 50};
  EXPECT_EQ(gpu_workspace_bytes(options, 70000, 1000), (71000 + 2 * 528 * 64) * 16 * 4);
  options.max_length = 4096;
  EXPECT_EQ(gpu_workspace_bytes(options, 70000, 1000), 64 * 4096 * 16 * 4);
  options.max_length = 100000;
  EXPECT_EQ(gpu_workspace_bytes(options, 2049, 1000), 3 * 100000 * 16 * 4);
}

}  // namespace
}  // namespace serrate
