#include "serrate/kernels/jagged_softmax.h"

#include <limits>

#include "serrate/error.h"
#include "tests/kernels/host_batch.h"

namespace serrate {
namespace {

using Lengths = HostBatch::Lengths;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class JaggedSoftmaxAxes : public testing::TestWithParam<SoftmaxAxis> {};
INSTANTIATE_TEST_SUITE_P(Both, JaggedSoftmaxAxes,
                         testing::Values(SoftmaxAxis::kRows, SoftmaxAxis::kColumns));

// Jagged of several widths, and pairs.
std::vector<HostBatch> batches(const Lengths& lengths) {
  std::vector<HostBatch> result;
  for (const std::int64_t cols : {1, 5, 16, 37, 64, 130}) {
    result.push_back(HostBatch::jagged(lengths, cols));
  }
  result.push_back(HostBatch::pairs(lengths, lengths));
  return result;
}

const Lengths kLengths = {0, 1, 7, 63, 64, 65, 0, 127, 128, 129, 0};

TEST_P(JaggedSoftmaxAxes, AgreesWithTheReferenceAtAllLengthsInPlaceToo) {
  for (HostBatch x : batches(kLengths)) {
    x.randomise(1, 8);
    reference::Samples expected = x.in_double();
    for (reference::Matrix& sample : expected) sample = reference::softmax(sample, GetParam());
    HostBatch z = x;
    jagged_softmax_forward({x.view(), z.fill(7).view(), GetParam()}, Stream(Device::cpu(), 2));
    expect_close(z, expected, 1e-6);
    jagged_softmax_forward({x.view(), x.view(), GetParam()}, Stream());
    expect_same_bits(x, z);
  }
}

TEST_P(JaggedSoftmaxAxes, BackwardIsTheDerivativeOfTheReference) {
  for (HostBatch x : batches({0, 7, 1, 0, 33})) {
    x.randomise(1, 3);
    HostBatch z = x, d_x = x, d_z = x;
    d_z.randomise(2);
    jagged_softmax_forward({x.view(), z.view(), GetParam()}, Stream());
    jagged_softmax_backward({z.view(), d_z.view(), d_x.view(), GetParam()},
                            Stream(Device::cpu(), 2));
    reference::Samples at = x.in_double(), expected;
    const reference::Samples weights = d_z.in_double();
    for (std::size_t b = 0; b < at.size(); ++b) {
      const auto loss = [&] { return dot(weights[b], reference::softmax(at[b], GetParam())); };
      expected.push_back(numeric_gradient(at[b], loss));
    }
    expect_close(d_x, expected, 2e-6);
    jagged_softmax_backward({z.view(), d_z.view(), d_z.view(), GetParam()}, Stream());
    expect_same_bits(d_x, d_z);
  }
}

TEST_P(JaggedSoftmaxAxes, BitsDependOnTheSampleAlone) {
  for (HostBatch x : batches({65, 0, 1, 7, 200})) {
    x.randomise(1, 4);
    HostBatch d_z = x;
    d_z.randomise(2);
    expect_bits_depend_on_the_sample_alone(
        x, d_z, x, [&](HostBatch& of, HostBatch&, HostBatch& z, int threads) {
          jagged_softmax_forward({of.view(), z.view(), GetParam()}, Stream(Device::cpu(), threads));
        });
    expect_bits_depend_on_the_sample_alone(
        x, d_z, x, [&](HostBatch& z, HostBatch& d, HostBatch& d_x, int threads) {
          jagged_softmax_backward({z.view(), d.view(), d_x.view(), GetParam()},
                                  Stream(Device::cpu(), threads));
        });
  }
}

TEST_P(JaggedSoftmaxAxes, EmptyBatchesAndEmptySamplesDoNothing) {
  for (const std::size_t batch_size : {0, 3}) {
    for (HostBatch x : batches(Lengths(batch_size, 0))) {
      jagged_softmax_forward({x.view(), x.view(), GetParam()}, Stream());
      jagged_softmax_backward({x.view(), x.view(), x.view(), GetParam()}, Stream());
      EXPECT_TRUE(x.nothing_else_written());
    }
  }
}

TEST_P(JaggedSoftmaxAxes, HugeNumbersDoNotOverflowAndMaskedOnesAreZero) {
  HostBatch x = HostBatch::pairs({2, 1}, {2, 1});
  const std::vector<float> values = {1e30f, -kInfinity, -kInfinity, 2.0f, -kInfinity};
  auto next = values.begin();
  x.for_each([&](float& value) { value = *next++; });
  jagged_softmax_forward({x.view(), x.view(), GetParam()}, Stream());
  EXPECT_EQ(x.in_double()[0].values, (std::vector<double>{1, 0, 0, 1}));
  EXPECT_EQ(x.in_double()[1].values, std::vector<double>{0});
}

TEST(JaggedSoftmax, AColumnByHand) {
  HostBatch x = HostBatch::jagged({2, 3}, 1);
  const std::vector<float> values = {std::log(1.0f), std::log(3.0f), 5, 5, -kInfinity};
  auto next = values.begin();
  x.for_each([&](float& value) { value = *next++; });
  jagged_softmax_forward({x.view(), x.view()}, Stream());
  EXPECT_NEAR(x.in_double()[0].values[0], 0.25, 1e-7);
  EXPECT_NEAR(x.in_double()[0].values[1], 0.75, 1e-7);
  EXPECT_EQ(x.in_double()[1].values, (std::vector<double>{0.5, 0.5, 0}));
}

TEST(JaggedSoftmax, BadArgumentsAreErrors) {
  HostBatch x = HostBatch::jagged({3, 2}, 4), narrow = HostBatch::jagged({3, 2}, 3);
  HostBatch longer = HostBatch::jagged({3, 3}, 4), more = HostBatch::jagged({3, 2, 0}, 4);
  for (HostBatch* bad : {&narrow, &longer, &more}) {
    EXPECT_THROW(jagged_softmax_forward({x.view(), bad->view()}, Stream()), Error);
    EXPECT_THROW(jagged_softmax_backward({x.view(), bad->view(), x.view()}, Stream()), Error);
    EXPECT_THROW(jagged_softmax_backward({x.view(), x.view(), bad->view()}, Stream()), Error);
  }
}

}  // namespace
}  // namespace serrate
