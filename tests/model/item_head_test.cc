#include "src/model/item_head.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/support/devices.h"
#include "tests/support/test_array.h"

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

class ItemHeadTest : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, ItemHeadTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(ItemHeadTest, LossAndGradientsMatchTheDefinition) {
  const Stream stream(GetParam());
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  const auto draw = [&](std::int64_t rows) {
    std::vector<float> values(rows * kDim);
    for (float& v : values) v = normal(random);
    return values;
  };
  const TestArray<std::int64_t> target_ids{0, 1, 2}, negative_ids{3, 4, 5, 6};
  for (const bool l2_normalize : {false, true}) {
    const SequenceModelOptions options{
        .dim = kDim, .temperature = 0.5f, .l2_normalize = l2_normalize};
    TestArray<float> hidden = draw(kTokens), targets = draw(kTokens), negatives = draw(kNegatives);
    const TestArray<float> d_hidden(hidden.size()), d_targets(targets.size()),
        d_negatives(negatives.size(), 10);  // added to
    const TestArray<double> loss(1);
    ItemHead head(options);
    head.forward_backward({.hidden = {hidden.on(stream), kTokens, kDim},
                           .targets = {targets.on(stream), kTokens, kDim},
                           .negatives = {negatives.on(stream), kNegatives, kDim},
                           .target_ids = target_ids.on(stream),
                           .negative_ids = negative_ids.on(stream),
                           .d_loss = 2,
                           .d_hidden = {d_hidden.on(stream), kTokens, kDim},
                           .d_targets = {d_targets.on(stream), kTokens, kDim},
                           .d_negatives = {d_negatives.on(stream), kNegatives, kDim}},
                          loss.on(stream), stream);
    EXPECT_NEAR(loss[0], reference_loss(hidden.host(), targets.host(), negatives.host(), options),
                1e-5);

    const auto check_gradient = [&](std::vector<float>& values,
                                    const std::vector<float>& gradient) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        const float before = values[i], step = 1e-3f;
        values[i] = before + step;
        const double up = reference_loss(hidden.host(), targets.host(), negatives.host(), options);
        const float above = values[i];
        values[i] = before - step;
        const double down =
            reference_loss(hidden.host(), targets.host(), negatives.host(), options);
        const double slope = (up - down) / (double{above} - values[i]);
        values[i] = before;
        EXPECT_NEAR(gradient[i], 2 * slope, 1e-4) << i;
      }
    };
    check_gradient(hidden.host(), d_hidden.host());
    check_gradient(targets.host(), d_targets.host());
    for (float& value : d_negatives.host()) value -= 10;
    check_gradient(negatives.host(), d_negatives.host());
  }
}

// A negative's logit of 1 + 2^-9, of which bf16 leaves 1.
TEST_P(ItemHeadTest, ProductsHaveThePrecisionOfTheModel) {
  const Stream stream(GetParam());
  if (stream.device().type == DeviceType::kCpu) GTEST_SKIP() << "the CPU has fp32 alone";
  const TestArray<float> hidden{1}, target{0}, negative{1 + 0x1p-9f}, d_hidden(1), d_target(1),
      d_negative(1);
  const TestArray<std::int64_t> target_id{0}, negative_id{1};
  const auto row = [&](const TestArray<float>& values) {
    return DeviceMatrix<float>{values.on(stream), 1, 1};
  };
  for (const auto& [precision, logit] :
       {std::pair{Precision::kFp32, 1 + 0x1p-9}, {Precision::kBf16, 1.0}}) {
    const TestArray<double> loss(1);
    ItemHead head(SequenceModelOptions{.dim = 1, .precision = precision});
    head.forward_backward({.hidden = row(hidden),
                           .targets = row(target),
                           .negatives = row(negative),
                           .target_ids = target_id.on(stream),
                           .negative_ids = negative_id.on(stream),
                           .d_hidden = row(d_hidden),
                           .d_targets = row(d_target),
                           .d_negatives = row(d_negative)},
                          loss.on(stream), stream);
    EXPECT_NEAR(loss[0], std::log1p(std::exp(logit)), 1e-6);
  }
}

}  // namespace
}  // namespace serrate
