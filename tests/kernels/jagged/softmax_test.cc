#include "serrate/kernels/jagged_softmax.h"

#include <limits>

#include "serrate/error.h"
#include "tests/kernels/test_batch.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

using Lengths = TestBatch::Lengths;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class JaggedSoftmaxAxes : public KernelTestOver<SoftmaxAxis> {};
INSTANTIATE_TEST_SUITE_P(Both, JaggedSoftmaxAxes,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(SoftmaxAxis::kRows,
                                                          SoftmaxAxis::kColumns)));

// Jagged of several widths, and pairs.
std::vector<TestBatch> batches(const Lengths& lengths) {
  std::vector<TestBatch> result;
  for (const std::int64_t cols : {1, 5, 16, 37, 64, 130}) {
    result.push_back(TestBatch::jagged(lengths, cols));
  }
  result.push_back(TestBatch::pairs(lengths, lengths));
  return result;
}

TEST_P(JaggedSoftmaxAxes, AgreesWithTheReferenceAtAllLengthsInPlaceToo) {
  for (TestBatch x : batches(lengths_around_tiles(stream.device()))) {
    x.randomise(1, 8);
    reference::Samples expected = x.in_double();
    for (reference::Matrix& sample : expected) sample = reference::softmax(sample, param());
    TestBatch z = x;
    jagged_softmax_forward({x.on(stream), z.fill(7).on(stream), param()}, threads(2));
    expect_close(z, expected, 1e-6);
    jagged_softmax_forward({x.on(stream), x.on(stream), param()}, stream);
    expect_same_bits(x, z);
  }
}

TEST_P(JaggedSoftmaxAxes, BackwardIsTheDerivativeOfTheReference) {
  for (TestBatch x : batches({0, 7, 1, 0, 19})) {
    x.randomise(1, 3);
    TestBatch z = x, d_x = x, d_z = x;
    d_z.randomise(2);
    jagged_softmax_forward({x.on(stream), z.on(stream), param()}, stream);
    jagged_softmax_backward({z.on(stream), d_z.on(stream), d_x.on(stream), param()}, threads(2));
    reference::Samples at = x.in_double(), expected;
    const reference::Samples weights = d_z.in_double();
    for (std::size_t b = 0; b < at.size(); ++b) {
      const auto loss = [&] { return dot(weights[b], reference::softmax(at[b], param())); };
      expected.push_back(numeric_gradient(at[b], loss));
    }
    expect_close(d_x, expected, 2e-6);
    jagged_softmax_backward({z.on(stream), d_z.on(stream), d_z.on(stream), param()}, stream);
    expect_same_bits(d_x, d_z);
  }
}

TEST_P(JaggedSoftmaxAxes, BitsDependOnTheSampleAlone) {
  for (TestBatch x : batches({65, 0, 1, 7, 130})) {
    x.randomise(1, 4);
    TestBatch d_z = x;
    d_z.randomise(2);
    expect_bits_depend_on_the_sample_alone(
        x, d_z, x, [&](TestBatch& of, TestBatch&, TestBatch& z, int num_threads) {
          jagged_softmax_forward({of.on(stream), z.on(stream), param()}, threads(num_threads));
        });
    expect_bits_depend_on_the_sample_alone(
        x, d_z, x, [&](TestBatch& z, TestBatch& d, TestBatch& d_x, int num_threads) {
          jagged_softmax_backward({z.on(stream), d.on(stream), d_x.on(stream), param()},
                                  threads(num_threads));
        });
  }
}

TEST_P(JaggedSoftmaxAxes, EmptyBatchesAndEmptySamplesDoNothing) {
  for (const std::size_t batch_size : {0, 3}) {
    for (TestBatch x : batches(Lengths(batch_size, 0))) {
      jagged_softmax_forward({x.on(stream), x.on(stream), param()}, stream);
      jagged_softmax_backward({x.on(stream), x.on(stream), x.on(stream), param()}, stream);
      EXPECT_TRUE(x.nothing_else_written());
    }
  }
}

TEST_P(JaggedSoftmaxAxes, HugeNumbersDoNotOverflowAndMaskedOnesAreZero) {
  TestBatch x = TestBatch::pairs({2, 1}, {2, 1});
  const std::vector<float> values = {1e30f, -kInfinity, -kInfinity, 2.0f, -kInfinity};
  auto next = values.begin();
  x.for_each([&](float& value) { value = *next++; });
  jagged_softmax_forward({x.on(stream), x.on(stream), param()}, stream);
  EXPECT_EQ(x.in_double()[0].values, (std::vector<double>{1, 0, 0, 1}));
  EXPECT_EQ(x.in_double()[1].values, std::vector<double>{0});
}

class JaggedSoftmaxTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, JaggedSoftmaxTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(JaggedSoftmaxTest, AColumnByHand) {
  TestBatch x = TestBatch::jagged({2, 3}, 1);
  const std::vector<float> values = {std::log(1.0f), std::log(3.0f), 5, 5, -kInfinity};
  auto next = values.begin();
  x.for_each([&](float& value) { value = *next++; });
  jagged_softmax_forward({x.on(stream), x.on(stream)}, stream);
  EXPECT_NEAR(x.in_double()[0].values[0], 0.25, 1e-7);
  EXPECT_NEAR(x.in_double()[0].values[1], 0.75, 1e-7);
  EXPECT_EQ(x.in_double()[1].values, (std::vector<double>{0.5, 0.5, 0}));
}

// A device's offsets are not read on the host: there wrong ones are the caller's to see to.
TEST(JaggedSoftmaxOnTheCpu, BadArgumentsAreErrors) {
  const Stream stream;
  TestBatch x = TestBatch::jagged({3, 2}, 4), narrow = TestBatch::jagged({3, 2}, 3);
  TestBatch longer = TestBatch::jagged({3, 3}, 4), more = TestBatch::jagged({3, 2, 0}, 4);
  for (TestBatch* bad : {&narrow, &longer, &more}) {
    EXPECT_THROW(jagged_softmax_forward({x.on(stream), bad->on(stream)}, stream), Error);
    EXPECT_THROW(jagged_softmax_backward({x.on(stream), bad->on(stream), x.on(stream)}, stream),
                 Error);
    EXPECT_THROW(jagged_softmax_backward({x.on(stream), x.on(stream), bad->on(stream)}, stream),
                 Error);
  }
}

}  // namespace
}  // namespace serrate
