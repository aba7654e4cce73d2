#include "serrate/kernels/sampled_softmax.h"

#include <cmath>

#include "tests/kernels/test_matrix.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

struct Shape {
  std::int64_t n, num_negatives, dim;
  float scale = 1;  // of the values of hidden
};

struct Case {
  explicit Case(const Shape& s)
      : hidden(TestMatrix::random(s.n, s.dim, 1, s.scale)),
        targets(TestMatrix::random(s.n, s.dim, 2)),
        negatives(TestMatrix::random(s.num_negatives, s.dim, 3)),
        d_hidden(s.n, s.dim),
        d_targets(s.n, s.dim),
        d_negatives(s.num_negatives, s.dim, 77) {
    for (std::int64_t t = 0; t < s.n; ++t) target_ids.host().push_back(t % 7);
    for (std::int64_t i = 0; i < s.num_negatives; ++i) negative_ids.host().push_back((i * i) % 11);
  }

  void run(TestStreams& on, int num_threads = 1) {
    const Stream& stream = on.threads(num_threads);
    sampled_softmax({hidden.on(stream), targets.on(stream), negatives.on(stream),
                     target_ids.on(stream), negative_ids.on(stream), kInverseTemperature, kDLoss,
                     d_hidden.on(stream), d_targets.on(stream), d_negatives.on(stream)},
                    loss.on(stream), stream);
  }

  static constexpr float kInverseTemperature = 2.5f;
  static constexpr float kDLoss = 0.25f;
  TestMatrix hidden, targets, negatives, d_hidden, d_targets, d_negatives;
  TestArray<std::int64_t> target_ids, negative_ids;
  TestArray<double> loss{-1};
};

void expect_agrees_with_reference(TestStreams& on, const Shape& shape) {
  Case c(shape);
  c.run(on);
  reference::Softmax at{c.hidden.in_double(), c.targets.in_double(), c.negatives.in_double(),
                        c.target_ids.host(),  c.negative_ids.host(), Case::kInverseTemperature};
  const auto loss = [&] { return Case::kDLoss * sampled_softmax_loss(at); };
  EXPECT_NEAR(c.loss[0], sampled_softmax_loss(at), 2e-6 * std::max(1.0, c.loss[0]));
  expect_close(c.d_hidden, numeric_gradient(at.hidden, loss), 1e-5);
  expect_close(c.d_targets, numeric_gradient(at.targets, loss), 1e-5);
  expect_close(c.d_negatives, numeric_gradient(at.negatives, loss), 2e-5);
}

class SampledSoftmaxShapes : public KernelTestOver<Shape> {};
INSTANTIATE_TEST_SUITE_P(Shapes, SampledSoftmaxShapes,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(Shape{0, 3, 4}, Shape{1, 1, 1},
                                                          Shape{5, 0, 3}, Shape{3, 17, 5},
                                                          Shape{65, 20, 3}, Shape{9, 100, 19},
                                                          Shape{4, 33, 16, 8})));

TEST_P(SampledSoftmaxShapes, AgreesWithTheReference) {
  expect_agrees_with_reference(*this, param());
}

class SampledSoftmaxTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, SampledSoftmaxTest, testing::ValuesIn(test_devices()),
                         device_name);

TEST_P(SampledSoftmaxTest, ThreadsChangeNoBits) {
  const auto shapes = tests_run_on_devices() ? std::vector<Shape>{{150, 130, 20}, {70, 600, 4}}
                                             : std::vector<Shape>{{1300, 130, 20}, {70, 9000, 4}};
  for (const Shape& shape : shapes) {
    Case one(shape);
    one.run(*this);
    for (const int num_threads : {2, 3}) {
      Case several(shape);
      several.run(*this, num_threads);
      EXPECT_EQ(several.loss[0], one.loss[0]);
      EXPECT_EQ(several.d_hidden.raw(), one.d_hidden.raw());
      EXPECT_EQ(several.d_targets.raw(), one.d_targets.raw());
      EXPECT_EQ(several.d_negatives.raw(), one.d_negatives.raw());
    }
  }
}

// One token, logits log 3 for the target and log 1 for a negative: p = 3/4.
TEST_P(SampledSoftmaxTest, AgreesWithATokenByHand) {
  TestMatrix hidden = test_matrix(1, 1, {std::log(3.0f)}), targets(1, 1, 1), negatives(2, 1, 0);
  negatives(1, 0) = 5;  // the target's own row: left out
  TestMatrix d_hidden(1, 1), d_targets(1, 1), d_negatives(2, 1);
  const TestArray<std::int64_t> target_ids{8}, negative_ids{4, 8};
  const TestArray<double> loss(1);
  sampled_softmax({hidden.on(stream), targets.on(stream), negatives.on(stream),
                   target_ids.on(stream), negative_ids.on(stream), 1, 1, d_hidden.on(stream),
                   d_targets.on(stream), d_negatives.on(stream)},
                  loss.on(stream), stream);
  EXPECT_NEAR(loss[0], std::log(4.0 / 3), 1e-7);
  EXPECT_NEAR(d_hidden(0, 0), -0.25, 1e-6);
  EXPECT_NEAR(d_targets(0, 0), -0.25 * std::log(3.0), 1e-6);
  EXPECT_NEAR(d_negatives(0, 0), 0.25 * std::log(3.0), 1e-6);
  EXPECT_EQ(d_negatives(1, 0), 0);
}

// exp(2000) overflows; a target far above all others has the loss exp(-2000) = 0, not NaN.
TEST_P(SampledSoftmaxTest, LargeLogitsStayFinite) {
  TestMatrix hidden = test_matrix(2, 1, {1000, -1000}), targets(2, 1, 1), negatives(1, 1, -1);
  TestMatrix d_hidden(2, 1), d_targets(2, 1), d_negatives(1, 1);
  const TestArray<std::int64_t> target_ids{0, 1}, negative_ids{2};
  const TestArray<double> loss(1);
  sampled_softmax({hidden.on(stream), targets.on(stream), negatives.on(stream),
                   target_ids.on(stream), negative_ids.on(stream), 1, 1, d_hidden.on(stream),
                   d_targets.on(stream), d_negatives.on(stream)},
                  loss.on(stream), stream);
  EXPECT_EQ(loss[0], 2000);
  expect_close(d_hidden, test_matrix(2, 1, {0, -2}).in_double(), 1e-6);
  EXPECT_EQ(d_negatives(0, 0), -1000);
}

// A loss of 1e-6 is not lost in the rounding of 1 + 1e-6.
TEST_P(SampledSoftmaxTest, SmallLossesKeepTheirDigits) {
  TestMatrix hidden(1, 1, 1), targets(1, 1, 14), negatives(1, 1, 0);
  const TestArray<std::int64_t> target_ids{0}, negative_ids{1};
  const TestArray<double> loss(1);
  sampled_softmax({hidden.on(stream),
                   targets.on(stream),
                   negatives.on(stream),
                   target_ids.on(stream),
                   negative_ids.on(stream),
                   1,
                   1,
                   {},
                   {},
                   {}},
                  loss.on(stream), stream);
  EXPECT_NEAR(loss[0], std::log1p(std::exp(-14.0)), 1e-5 * loss[0]);
}

}  // namespace
}  // namespace serrate
