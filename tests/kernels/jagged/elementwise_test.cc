#include "serrate/kernels/jagged_elementwise.h"

#include "serrate/error.h"
#include "tests/kernels/test_batch.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

using Lengths = TestBatch::Lengths;

struct ElementwiseOperands {
  TestBatch x, y;
};

// N = 64: shorter and longer samples than y has rows.
const Lengths kLengths = {0, 1, 7, 63, 64, 65, 0, 100, 0};

std::vector<ElementwiseOperands> operands_of(const Lengths& lengths, std::int64_t n) {
  const auto batch_size = std::ssize(lengths);
  std::vector<ElementwiseOperands> result;
  for (const std::int64_t cols : {1, 5, 8, 64}) {
    const TestBatch x = TestBatch::jagged(lengths, cols);
    result.push_back({x, TestBatch::dense(batch_size, n, cols)});
    result.push_back({x, TestBatch::shared(batch_size, n, cols)});
  }
  const TestBatch pairs = TestBatch::pairs(lengths, lengths);
  result.push_back({pairs, TestBatch::shared(batch_size, n, n)});
  result.push_back({pairs, TestBatch::dense(batch_size, n, n)});
  return result;
}

class JaggedElementwiseOps : public KernelTestOver<Elementwise> {};
INSTANTIATE_TEST_SUITE_P(Both, JaggedElementwiseOps,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(Elementwise::kAdd,
                                                          Elementwise::kMultiply)));

TEST_P(JaggedElementwiseOps, AgreesWithTheReferenceInPlaceToo) {
  for (auto& [x, y] : operands_of(kLengths, 64)) {
    x.randomise(1);
    y.randomise(2);
    const reference::Samples ys = y.in_double();
    reference::Samples expected = x.in_double();
    for (std::size_t b = 0; b < ys.size(); ++b) {
      expected[b] = reference::elementwise(param(), expected[b], ys[b]);
    }
    TestBatch z = x;
    jagged_elementwise_forward({param(), x.on(stream), y.on(stream), z.fill(7).on(stream)},
                               threads(2));
    expect_close(z, expected, 1e-7);
    jagged_elementwise_forward({param(), x.on(stream), y.on(stream), x.on(stream)}, stream);
    expect_same_bits(x, z);
  }
}

// The loss is linear in each element: differences are exact, whatever the step.
TEST_P(JaggedElementwiseOps, BackwardIsTheDerivativeOfTheReference) {
  for (auto& [x, y] : operands_of({0, 3, 1, 6, 4}, 4)) {
    TestBatch d_z = x, d_x = x, d_y = y;
    jagged_elementwise_backward(
        {param(), x.randomise(1).on(stream), y.randomise(2).on(stream), d_z.randomise(3).on(stream),
         d_x.fill(7).on(stream), d_y.fill(7).on(stream)},
        threads(2));
    reference::Samples xs = x.in_double(), ys = y.in_double(), by_x, by_y;
    const reference::Samples weights = d_z.in_double();
    for (std::size_t b = 0; b < xs.size(); ++b) {
      const auto loss = [&] {
        return dot(weights[b], reference::elementwise(param(), xs[b], ys[b]));
      };
      by_x.push_back(numeric_gradient(xs[b], loss));
      by_y.push_back(numeric_gradient(ys[b], loss));
    }
    if (y.on(stream).is_shared()) {
      reference::Matrix sum(by_y[0].rows, by_y[0].cols);
      for (const reference::Matrix& part : by_y) {
        sum = reference::elementwise(Elementwise::kAdd, sum, part);
      }
      by_y.assign(by_y.size(), sum);
    }
    expect_close(d_x, by_x, 1e-6);
    expect_close(d_y, by_y, 1e-6);
    const TestBatch expected = d_x;
    jagged_elementwise_backward(
        {param(), x.on(stream), y.on(stream), d_z.on(stream), d_z.on(stream), d_y.on(stream)},
        stream);
    expect_same_bits(d_z, expected);
  }
}

TEST_P(JaggedElementwiseOps, BitsDependOnTheSampleAlone) {
  for (auto& [x, y] : operands_of({65, 0, 1, 7, 200}, 64)) {
    expect_bits_depend_on_the_sample_alone(
        x.randomise(1), y.randomise(2), x,
        [&](TestBatch& a, TestBatch& b, TestBatch& z, int num_threads) {
          jagged_elementwise_forward({param(), a.on(stream), b.on(stream), z.on(stream)},
                                     threads(num_threads));
        });
  }
}

TEST_P(JaggedElementwiseOps, DenseGradientsDoNotDependOnTheNumberOfThreads) {
  for (auto& [x, y] : operands_of({65, 0, 1, 300, 200}, 128)) {
    TestBatch one = y, many = y;
    for (const auto& [d_y, num_threads] : {std::pair{&one, 1}, {&many, 3}}) {
      jagged_elementwise_backward(
          {param(), x.randomise(1).on(stream), y.on(stream), x.on(stream), {}, d_y->on(stream)},
          threads(num_threads));
    }
    expect_same_bits(one, many);
  }
}

TEST_P(JaggedElementwiseOps, GradientsOfNothingAreZero) {
  for (const std::size_t batch_size : {0, 3}) {
    for (auto& [x, y] : operands_of(Lengths(batch_size, 0), 4)) {
      jagged_elementwise_forward({param(), x.on(stream), y.on(stream), x.on(stream)}, stream);
      jagged_elementwise_backward(
          {param(), x.on(stream), y.on(stream), x.on(stream), x.on(stream), y.fill(7).on(stream)},
          stream);
      EXPECT_TRUE(x.nothing_else_written() && y.nothing_else_written());
      y.for_each([](float& value) { EXPECT_EQ(value, 0); });
    }
  }
}

class JaggedElementwiseTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, JaggedElementwiseTest, testing::ValuesIn(test_devices()),
                         device_name);

// Among 200 samples with 0, 1, 2, 0, 1, 2 ... rows 133 have a first and 66 a second one.
TEST_P(JaggedElementwiseTest, TheGradientOfASharedMatrixCountsManySamples) {
  Lengths lengths;
  for (std::int64_t b = 0; b < 200; ++b) lengths.push_back(b % 3);
  for (const std::int64_t cols : {5, 8}) {
    TestBatch d_z = TestBatch::jagged(lengths, cols), d_y = TestBatch::shared(200, 3, cols);
    jagged_elementwise_backward(
        {Elementwise::kAdd, {}, {}, d_z.fill(1).on(stream), {}, d_y.fill(7).on(stream)}, stream);
    std::vector<double> expected;
    for (const double count : {133, 66, 0}) expected.insert(expected.end(), cols, count);
    EXPECT_EQ(d_y.in_double()[0].values, expected);
    EXPECT_TRUE(d_y.nothing_else_written());
  }
}

// A y without rows: a sum is x.
TEST_P(JaggedElementwiseTest, NothingToAdd) {
  TestBatch x = TestBatch::jagged({3, 2}, 4), y = TestBatch::dense(2, 0, 4);
  TestBatch z = x;
  jagged_elementwise_forward(
      {Elementwise::kAdd, x.randomise(1).on(stream), y.on(stream), z.on(stream)}, stream);
  expect_same_bits(x, z);
  jagged_elementwise_backward({Elementwise::kAdd, x.on(stream), y.on(stream), x.on(stream),
                               z.fill(7).on(stream), y.on(stream)},
                              stream);
  expect_same_bits(x, z);
}

// A device's offsets are not read on the host: there wrong ones are the caller's to see to.
TEST(JaggedElementwiseOnTheCpu, BadArgumentsAreErrors) {
  const Stream stream;
  TestBatch x = TestBatch::jagged({3, 2}, 4), y = TestBatch::dense(2, 3, 4);
  TestBatch longer = TestBatch::jagged({3, 3}, 4), more = TestBatch::dense(3, 3, 4);
  const auto op = Elementwise::kMultiply;
  EXPECT_THROW(
      jagged_elementwise_forward({op, x.on(stream), y.on(stream), longer.on(stream)}, stream),
      Error);
  EXPECT_THROW(
      jagged_elementwise_forward({op, x.on(stream), more.on(stream), x.on(stream)}, stream), Error);
  EXPECT_THROW(jagged_elementwise_forward({op, x.on(stream), x.on(stream), x.on(stream)}, stream),
               Error);
  EXPECT_THROW(jagged_elementwise_backward(
                   {op, x.on(stream), y.on(stream), longer.on(stream), {}, y.on(stream)}, stream),
               Error);
}

}  // namespace
}  // namespace serrate
