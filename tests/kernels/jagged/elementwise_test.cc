#include "serrate/kernels/jagged_elementwise.h"

#include "serrate/error.h"
#include "tests/kernels/host_batch.h"

namespace serrate {
namespace {

using Lengths = HostBatch::Lengths;

struct Operands {
  HostBatch x, y;
};

// N = 64: shorter and longer samples than y has rows.
const Lengths kLengths = {0, 1, 7, 63, 64, 65, 0, 100, 0};

std::vector<Operands> operands_of(const Lengths& lengths, std::int64_t n) {
  const auto batch_size = std::ssize(lengths);
  std::vector<Operands> result;
  for (const std::int64_t cols : {1, 5, 64}) {
    const HostBatch x = HostBatch::jagged(lengths, cols);
    result.push_back({x, HostBatch::dense(batch_size, n, cols)});
    result.push_back({x, HostBatch::shared(batch_size, n, cols)});
  }
  const HostBatch pairs = HostBatch::pairs(lengths, lengths);
  result.push_back({pairs, HostBatch::shared(batch_size, n, n)});
  result.push_back({pairs, HostBatch::dense(batch_size, n, n)});
  return result;
}

class JaggedElementwiseOps : public testing::TestWithParam<Elementwise> {};
INSTANTIATE_TEST_SUITE_P(Both, JaggedElementwiseOps,
                         testing::Values(Elementwise::kAdd, Elementwise::kMultiply));

TEST_P(JaggedElementwiseOps, AgreesWithTheReferenceInPlaceToo) {
  for (auto& [x, y] : operands_of(kLengths, 64)) {
    x.randomise(1);
    y.randomise(2);
    const reference::Samples ys = y.in_double();
    reference::Samples expected = x.in_double();
    for (std::size_t b = 0; b < ys.size(); ++b) {
      expected[b] = reference::elementwise(GetParam(), expected[b], ys[b]);
    }
    HostBatch z = x;
    jagged_elementwise_forward({GetParam(), x.view(), y.view(), z.fill(7).view()},
                               Stream(Device::cpu(), 2));
    expect_close(z, expected, 1e-7);
    jagged_elementwise_forward({GetParam(), x.view(), y.view(), x.view()}, Stream());
    expect_same_bits(x, z);
  }
}

// The loss is linear in each element: differences are exact, whatever the step.
TEST_P(JaggedElementwiseOps, BackwardIsTheDerivativeOfTheReference) {
  for (auto& [x, y] : operands_of({0, 3, 1, 6, 4}, 4)) {
    HostBatch d_z = x, d_x = x, d_y = y;
    jagged_elementwise_backward({GetParam(), x.randomise(1).view(), y.randomise(2).view(),
                                 d_z.randomise(3).view(), d_x.fill(7).view(), d_y.fill(7).view()},
                                Stream(Device::cpu(), 2));
    reference::Samples xs = x.in_double(), ys = y.in_double(), by_x, by_y;
    const reference::Samples weights = d_z.in_double();
    for (std::size_t b = 0; b < xs.size(); ++b) {
      const auto loss = [&] {
        return dot(weights[b], reference::elementwise(GetParam(), xs[b], ys[b]));
      };
      by_x.push_back(numeric_gradient(xs[b], loss));
      by_y.push_back(numeric_gradient(ys[b], loss));
    }
    if (y.view().is_shared()) {
      reference::Matrix sum(by_y[0].rows, by_y[0].cols);
      for (const reference::Matrix& part : by_y) {
        sum = reference::elementwise(Elementwise::kAdd, sum, part);
      }
      by_y.assign(by_y.size(), sum);
    }
    expect_close(d_x, by_x, 1e-6);
    expect_close(d_y, by_y, 1e-6);
    const HostBatch expected = d_x;
    jagged_elementwise_backward(
        {GetParam(), x.view(), y.view(), d_z.view(), d_z.view(), d_y.view()}, Stream());
    expect_same_bits(d_z, expected);
  }
}

TEST_P(JaggedElementwiseOps, BitsDependOnTheSampleAlone) {
  for (auto& [x, y] : operands_of({65, 0, 1, 7, 200}, 64)) {
    expect_bits_depend_on_the_sample_alone(
        x.randomise(1), y.randomise(2), x,
        [&](HostBatch& a, HostBatch& b, HostBatch& z, int threads) {
          jagged_elementwise_forward({GetParam(), a.view(), b.view(), z.view()},
                                     Stream(Device::cpu(), threads));
        });
  }
}

TEST_P(JaggedElementwiseOps, DenseGradientsDoNotDependOnTheNumberOfThreads) {
  for (auto& [x, y] : operands_of({65, 0, 1, 300, 200}, 128)) {
    HostBatch one = y, many = y;
    for (const auto& [d_y, threads] : {std::pair{&one, 1}, {&many, 3}}) {
      jagged_elementwise_backward(
          {GetParam(), x.randomise(1).view(), y.view(), x.view(), {}, d_y->view()},
          Stream(Device::cpu(), threads));
    }
    expect_same_bits(one, many);
  }
}

TEST_P(JaggedElementwiseOps, GradientsOfNothingAreZero) {
  for (const std::size_t batch_size : {0, 3}) {
    for (auto& [x, y] : operands_of(Lengths(batch_size, 0), 4)) {
      jagged_elementwise_forward({GetParam(), x.view(), y.view(), x.view()}, Stream());
      jagged_elementwise_backward(
          {GetParam(), x.view(), y.view(), x.view(), x.view(), y.fill(7).view()}, Stream());
      EXPECT_TRUE(x.nothing_else_written() && y.nothing_else_written());
      y.for_each([](float& value) { EXPECT_EQ(value, 0); });
    }
  }
}

// A y without rows: a sum is x.
TEST(JaggedElementwise, NothingToAdd) {
  HostBatch x = HostBatch::jagged({3, 2}, 4), y = HostBatch::dense(2, 0, 4);
  HostBatch z = x;
  jagged_elementwise_forward({Elementwise::kAdd, x.randomise(1).view(), y.view(), z.view()},
                             Stream());
  expect_same_bits(x, z);
  jagged_elementwise_backward(
      {Elementwise::kAdd, x.view(), y.view(), x.view(), z.fill(7).view(), y.view()}, Stream());
  expect_same_bits(x, z);
}

TEST(JaggedElementwise, BadArgumentsAreErrors) {
  HostBatch x = HostBatch::jagged({3, 2}, 4), y = HostBatch::dense(2, 3, 4);
  HostBatch longer = HostBatch::jagged({3, 3}, 4), more = HostBatch::dense(3, 3, 4);
  const auto op = Elementwise::kMultiply;
  EXPECT_THROW(jagged_elementwise_forward({op, x.view(), y.view(), longer.view()}, Stream()),
               Error);
  EXPECT_THROW(jagged_elementwise_forward({op, x.view(), more.view(), x.view()}, Stream()), Error);
  EXPECT_THROW(jagged_elementwise_forward({op, x.view(), x.view(), x.view()}, Stream()), Error);
  EXPECT_THROW(
      jagged_elementwise_backward({op, x.view(), y.view(), longer.view(), {}, y.view()}, Stream()),
      Error);
}

}  // namespace
}  // namespace serrate
