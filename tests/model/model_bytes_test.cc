#include "src/model/model_bytes.h"

#include <gtest/gtest.h>

#include <numeric>

#include "src/model/item_head.h"
#include "src/model/sequence_encoder.h"

namespace serrate {
namespace {

TEST(ModelBytes, AreWhatEncoderAndHeadAllocate) {
  constexpr std::int64_t kTokens = 48, kNegatives = 20;
  const Stream stream;
  for (const SequenceModelOptions& options :
       {SequenceModelOptions{.dim = 8, .num_blocks = 2, .num_heads = 2, .max_length = 16},
        SequenceModelOptions{.dim = 12,
                             .num_blocks = 1,
                             .num_heads = 3,
                             .feed_forward_dim = 20,
                             .max_length = 9,
                             .l2_normalize = true}}) {
    SequenceEncoder encoder(options, 1, stream);
    ItemHead head(options);
    EXPECT_EQ(parameter_bytes(options), 4 * encoder.parameters().size());

    std::vector<std::int64_t> ids(kTokens), offsets{0};
    std::iota(ids.begin(), ids.end(), 0);
    std::vector<std::int64_t> positions;
    for (const std::int64_t id : ids) positions.push_back(id % 8);
    for (std::int64_t end = 8; end <= kTokens; end += 8) offsets.push_back(end);
    const TokenBatch tokens{on_cpu(std::as_const(offsets)), on_cpu(std::as_const(positions)),
                            on_cpu(std::as_const(ids))};
    const std::int64_t dim = options.dim;
    std::vector<float> rows(kTokens * dim, 0.5f), d_rows(kTokens * dim), d_hidden(kTokens * dim);
    std::vector<float> d_targets(kTokens * dim), d_negatives(kNegatives * dim);
    const DeviceMatrix<const float> inputs{rows.data(), kTokens, dim};
    const auto hidden = encoder.forward({&inputs, 1}, tokens, 1, EncoderMode::kTrain, stream);
    std::vector<double> loss(1);
    const DeviceMatrix<float> d_hidden_view{d_hidden.data(), kTokens, dim};
    head.forward_backward({.hidden = hidden,
                           .targets = inputs,
                           .negatives = inputs.middle_rows(0, kNegatives),
                           .target_ids = tokens.token_ids,
                           .negative_ids = tokens.token_ids.first(kNegatives),
                           .d_hidden = d_hidden_view,
                           .d_targets = {d_targets.data(), kTokens, dim},
                           .d_negatives = {d_negatives.data(), kNegatives, dim}},
                          on_cpu(loss), stream);
    const DeviceMatrix<float> d_inputs{d_rows.data(), kTokens, dim};
    encoder.backward(d_hidden_view, {&d_inputs, 1}, tokens, stream);
    // d_hidden is the caller's, who has a quarter more of it too.
    const std::int64_t held =
        encoder.activation_bytes() + head.activation_bytes() + kTokens * dim * 5;
    EXPECT_NEAR(static_cast<double>(activation_bytes(options, kTokens, kNegatives)),
                static_cast<double>(held), 0.01 * static_cast<double>(held));
  }
}

}  // namespace
}  // namespace serrate
