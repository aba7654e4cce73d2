#include "src/model/item_head.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace serrate {
namespace {

constexpr std::int64_t kTokens = 3, kNegatives = 4, kDim = 5;

/// The loss in double from its definition: cosine (or dot product) / temperature, cross-entropy.
double reference_loss(const std::vector<float>& hidden, const std::vector<float>& targets,
                      const std::vector<float>& negatives, const SequenceModelOptions& options) {
  const auto score = [&](const float* h, const float* item) {
    double dot = 0, hh = 0, ii = 0;
    for (std::int64_t c = 0; c < kDim; ++c) {
      dot += double{h[c]} * item[c];
      hh += double{h[c]} * h[c];
      ii += double{item[c]} * item[c];
    }
    return (options.l2_normalize ? dot / std::sqrt(hh * ii) : dot) / options.temperature;
  };
  double loss = 0;
  for (std::int64_t t = 0; t < kTokens; ++t) {
    const double target = score(&hidden[t * kDim], &targets[t * kDim]);
    double sum = std::exp(target);
    for (std::int64_t n = 0; n < kNegatives; ++n) {
      sum += std::exp(score(&hidden[t * kDim], &negatives[n * kDim]));
    }
    loss += std::log(sum) - target;
  }
  return loss;
}

TEST(ItemHeadTest, LossAndGradientsMatchTheDefinition) {
  const Stream stream;
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  const auto draw = [&](std::int64_t rows) {
    std::vector<float> values(rows * kDim);
    for (float& v : values) v = normal(random);
    return values;
  };
  const std::vector<std::int64_t> target_ids{0, 1, 2}, negative_ids{3, 4, 5, 6};
  for (const bool l2_normalize : {false, true}) {
    const SequenceModelOptions options{
        .dim = kDim, .temperature = 0.5f, .l2_normalize = l2_normalize};
    std::vector<float> hidden = draw(kTokens), targets = draw(kTokens),
                       negatives = draw(kNegatives);
    std::vector<float> d_hidden(hidden.size()), d_targets(targets.size()),
        d_negatives(negatives.size(), 10);  // added to
    std::vector<double> loss(1);
    ItemHead head(options);
    head.forward_backward({.hidden = {hidden.data(), kTokens, kDim},
                           .targets = {targets.data(), kTokens, kDim},
                           .negatives = {negatives.data(), kNegatives, kDim},
                           .target_ids = on_cpu(target_ids),
                           .negative_ids = on_cpu(negative_ids),
                           .d_loss = 2,
                           .d_hidden = {d_hidden.data(), kTokens, kDim},
                           .d_targets = {d_targets.data(), kTokens, kDim},
                           .d_negatives = {d_negatives.data(), kNegatives, kDim}},
                          on_cpu(loss), stream);
    EXPECT_NEAR(loss[0], reference_loss(hidden, targets, negatives, options), 1e-5);

    const auto check_gradient = [&](std::vector<float>& values,
                                    const std::vector<float>& gradient) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        const float before = values[i], step = 1e-3f;
        values[i] = before + step;
        const double up = reference_loss(hidden, targets, negatives, options);
        const float above = values[i];
        values[i] = before - step;
        const double down = reference_loss(hidden, targets, negatives, options);
        const double slope = (up - down) / (double{above} - values[i]);
        values[i] = before;
        EXPECT_NEAR(gradient[i], 2 * slope, 1e-4) << i;
      }
    };
    check_gradient(hidden, d_hidden);
    check_gradient(targets, d_targets);
    for (float& value : d_negatives) value -= 10;
    check_gradient(negatives, d_negatives);
  }
}

}  // namespace
}  // namespace serrate
