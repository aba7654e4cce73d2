#include "serrate/kernels/sampled_softmax.h"

#include <cmath>

#include "tests/kernels/host_matrix.h"

namespace serrate {
namespace {

using AccidentalHits = SampledSoftmax::AccidentalHits;

struct Shape {
  std::int64_t n, num_negatives, dim;
  float scale = 1;  // of the values of hidden
};

struct Case {
  explicit Case(const Shape& s, AccidentalHits hits_ = AccidentalHits::kMask)
      : hidden(HostMatrix::random(s.n, s.dim, 1, s.scale)),
        targets(HostMatrix::random(s.n, s.dim, 2)),
        negatives(HostMatrix::random(s.num_negatives, s.dim, 3)),
        d_hidden(s.n, s.dim),
        d_targets(s.n, s.dim),
        d_negatives(s.num_negatives, s.dim, 77),
        hits(hits_) {
    for (std::int64_t t = 0; t < s.n; ++t) target_ids.push_back(t % 7);
    for (std::int64_t i = 0; i < s.num_negatives; ++i) negative_ids.push_back((i * i) % 11);
  }

  void run(int num_threads) {
    sampled_softmax(
        {hidden.view(), targets.view(), negatives.view(), target_ids, negative_ids,
         kInverseTemperature, hits, kDLoss, d_hidden.view(), d_targets.view(), d_negatives.view()},
        {&loss, 1}, Stream(Device::cpu(), num_threads));
  }

  static constexpr float kInverseTemperature = 2.5f;
  static constexpr float kDLoss = 0.25f;
  HostMatrix hidden, targets, negatives, d_hidden, d_targets, d_negatives;
  std::vector<std::int64_t> target_ids, negative_ids;
  AccidentalHits hits;
  double loss = -1;
};

void expect_agrees_with_reference(const Shape& shape, AccidentalHits hits) {
  Case c(shape, hits);
  c.run(1);
  reference::Softmax at{
      c.hidden.in_double(), c.targets.in_double(),     c.negatives.in_double(),      c.target_ids,
      c.negative_ids,       Case::kInverseTemperature, hits == AccidentalHits::kMask};
  const auto loss = [&] { return Case::kDLoss * sampled_softmax_loss(at); };
  EXPECT_NEAR(c.loss, sampled_softmax_loss(at), 2e-6 * std::max(1.0, c.loss));
  expect_close(c.d_hidden, numeric_gradient(at.hidden, loss), 1e-5);
  expect_close(c.d_targets, numeric_gradient(at.targets, loss), 1e-5);
  expect_close(c.d_negatives, numeric_gradient(at.negatives, loss), 2e-5);
}

class SampledSoftmaxShapes : public testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(Shapes, SampledSoftmaxShapes,
                         testing::Values(Shape{0, 3, 4}, Shape{1, 1, 1}, Shape{5, 0, 3},
                                         Shape{3, 17, 5}, Shape{65, 20, 3}, Shape{9, 100, 19},
                                         Shape{4, 33, 16, 8}));

TEST_P(SampledSoftmaxShapes, AgreesWithTheReference) {
  expect_agrees_with_reference(GetParam(), AccidentalHits::kMask);
}

TEST_P(SampledSoftmaxShapes, AgreesWithTheReferenceWithHitsKept) {
  expect_agrees_with_reference(GetParam(), AccidentalHits::kKeep);
}

TEST(SampledSoftmax, ThreadsChangeNoBits) {
  for (const Shape& shape : {Shape{1300, 130, 20}, Shape{70, 9000, 4}}) {
    Case one(shape);
    one.run(1);
    for (const int num_threads : {2, 3}) {
      Case several(shape);
      several.run(num_threads);
      EXPECT_EQ(several.loss, one.loss);
      EXPECT_EQ(several.d_hidden.raw(), one.d_hidden.raw());
      EXPECT_EQ(several.d_targets.raw(), one.d_targets.raw());
      EXPECT_EQ(several.d_negatives.raw(), one.d_negatives.raw());
    }
  }
}

// One token, logits log 3 for the target and log 1 for a negative: p = 3/4.
TEST(SampledSoftmax, AgreesWithATokenByHand) {
  HostMatrix hidden = host_matrix(1, 1, {std::log(3.0f)}), targets(1, 1, 1), negatives(2, 1, 0);
  negatives.view().row(1)[0] = 5;  // the target's own row: left out
  HostMatrix d_hidden(1, 1), d_targets(1, 1), d_negatives(2, 1);
  const std::vector<std::int64_t> target_ids{8}, negative_ids{4, 8};
  double loss = 0;
  sampled_softmax({hidden.view(), targets.view(), negatives.view(), target_ids, negative_ids, 1,
                   AccidentalHits::kMask, 1, d_hidden.view(), d_targets.view(), d_negatives.view()},
                  {&loss, 1}, Stream());
  EXPECT_NEAR(loss, std::log(4.0 / 3), 1e-7);
  EXPECT_NEAR(d_hidden.view().data[0], -0.25, 1e-6);
  EXPECT_NEAR(d_targets.view().data[0], -0.25 * std::log(3.0), 1e-6);
  EXPECT_NEAR(d_negatives.view().row(0)[0], 0.25 * std::log(3.0), 1e-6);
  EXPECT_EQ(d_negatives.view().row(1)[0], 0);
}

// exp(2000) overflows; a target far above all others has the loss exp(-2000) = 0, not NaN.
TEST(SampledSoftmax, LargeLogitsStayFinite) {
  HostMatrix hidden = host_matrix(2, 1, {1000, -1000}), targets(2, 1, 1), negatives(1, 1, -1);
  HostMatrix d_hidden(2, 1), d_targets(2, 1), d_negatives(1, 1);
  const std::vector<std::int64_t> target_ids{0, 1}, negative_ids{2};
  double loss = 0;
  sampled_softmax({hidden.view(), targets.view(), negatives.view(), target_ids, negative_ids, 1,
                   AccidentalHits::kMask, 1, d_hidden.view(), d_targets.view(), d_negatives.view()},
                  {&loss, 1}, Stream());
  EXPECT_EQ(loss, 2000);
  expect_close(d_hidden, host_matrix(2, 1, {0, -2}).in_double(), 1e-6);
  EXPECT_EQ(d_negatives.view().data[0], -1000);
}

// A loss of 1e-6 is not lost in the rounding of 1 + 1e-6.
TEST(SampledSoftmax, SmallLossesKeepTheirDigits) {
  HostMatrix hidden(1, 1, 1), targets(1, 1, 14), negatives(1, 1, 0);
  const std::vector<std::int64_t> target_ids{0}, negative_ids{1};
  double loss = 0;
  sampled_softmax({hidden.view(),
                   targets.view(),
                   negatives.view(),
                   target_ids,
                   negative_ids,
                   1,
                   AccidentalHits::kMask,
                   1,
                   {},
                   {},
                   {}},
                  {&loss, 1}, Stream());
  EXPECT_NEAR(loss, std::log1p(std::exp(-14.0)), 1e-5 * loss);
}

}  // namespace
}  // namespace serrate
