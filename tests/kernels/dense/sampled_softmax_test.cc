#include "serrate/kernels/sampled_softmax.h"

#include <bit>
#include <cmath>

#include "serrate/bfloat16.h"
#include "serrate/error.h"
#include "tests/kernels/test_matrix.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

struct SoftmaxShape {
  std::int64_t n, num_negatives, dim;
  float scale = 1;  // of the values of hidden
};

struct Case {
  explicit Case(const SoftmaxShape& s)
      : hidden(TestMatrix::random(s.n, s.dim, 1, s.scale)),
        targets(TestMatrix::random(s.n, s.dim, 2)),
        negatives(TestMatrix::random(s.num_negatives, s.dim, 3)),
        d_hidden(s.n, s.dim),
        d_targets(s.n, s.dim),
        d_negatives(s.num_negatives, s.dim, kBefore) {
    for (std::int64_t t = 0; t < s.n; ++t) target_ids.host().push_back(t % 7);
    for (std::int64_t i = 0; i < s.num_negatives; ++i) negative_ids.host().push_back((i * i) % 11);
  }

  void run(TestStreams& on, int num_threads = 1, Precision precision = Precision::kFp32) {
    const Stream& stream = on.threads(num_threads);
    sampled_softmax({hidden.on(stream), targets.on(stream), negatives.on(stream),
                     target_ids.on(stream), negative_ids.on(stream), kInverseTemperature, kDLoss,
                     d_hidden.on(stream), d_targets.on(stream), d_negatives.on(stream), precision},
                    loss.on(stream), stream);
  }

  static constexpr float kInverseTemperature = 2.5f;
  static constexpr float kDLoss = 0.25f;
  static constexpr float kBefore = 0.5f;  // what d_negatives is added to
  TestMatrix hidden, targets, negatives, d_hidden, d_targets, d_negatives;
  TestArray<std::int64_t> target_ids, negative_ids;
  TestArray<double> loss{-1};
};

void expect_agrees_with_reference(TestStreams& on, const SoftmaxShape& shape) {
  Case c(shape);
  c.run(on);
  reference::Softmax at{c.hidden.in_double(), c.targets.in_double(), c.negatives.in_double(),
                        c.target_ids.host(),  c.negative_ids.host(), Case::kInverseTemperature};
  const auto loss = [&] { return Case::kDLoss * sampled_softmax_loss(at); };
  EXPECT_NEAR(c.loss[0], sampled_softmax_loss(at), 2e-6 * std::max(1.0, c.loss[0]));
  expect_close(c.d_hidden, numeric_gradient(at.hidden, loss), 1e-5);
  expect_close(c.d_targets, numeric_gradient(at.targets, loss), 1e-5);
  reference::Matrix d_negatives = numeric_gradient(at.negatives, loss);
  for (double& value : d_negatives.values) value += Case::kBefore;
  expect_close(c.d_negatives, d_negatives, 2e-5);
}

class SampledSoftmaxShapes : public KernelTestOver<SoftmaxShape> {};
INSTANTIATE_TEST_SUITE_P(
    Shapes, SampledSoftmaxShapes,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Values(SoftmaxShape{0, 3, 4}, SoftmaxShape{1, 1, 1},
                                     SoftmaxShape{5, 0, 3}, SoftmaxShape{3, 17, 5},
                                     SoftmaxShape{65, 20, 3}, SoftmaxShape{9, 100, 19},
                                     SoftmaxShape{4, 33, 16, 8})));

TEST_P(SampledSoftmaxShapes, AgreesWithTheReference) {
  expect_agrees_with_reference(*this, param());
}

class SampledSoftmaxTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, SampledSoftmaxTest, testing::ValuesIn(test_devices()),
                         device_name);

// Aligned rows, and so many tokens that a GPU's sums over them are those of more than 16 blocks.
TEST_P(SampledSoftmaxTest, AddsUpAlignedRowsOfManyTokens) {
  Case c({1100, 5, 16});
  for (TestMatrix* matrix :
       {&c.hidden, &c.targets, &c.negatives, &c.d_hidden, &c.d_targets, &c.d_negatives}) {
    *matrix = matrix->compact();
  }
  c.run(*this);
  reference::Softmax at{c.hidden.in_double(), c.targets.in_double(), c.negatives.in_double(),
                        c.target_ids.host(),  c.negative_ids.host(), Case::kInverseTemperature};
  EXPECT_NEAR(c.loss[0], sampled_softmax_loss(at), 2e-6 * c.loss[0]);
  reference::Matrix d_negatives =
      numeric_gradient(at.negatives, [&] { return Case::kDLoss * sampled_softmax_loss(at); });
  for (double& value : d_negatives.values) value += Case::kBefore;
  expect_close(c.d_negatives, d_negatives, 2e-5);
}

TEST_P(SampledSoftmaxTest, ThreadsChangeNoBits) {
  const auto shapes = tests_run_on_devices()
                          ? std::vector<SoftmaxShape>{{150, 130, 20}, {70, 600, 4}}
                          : std::vector<SoftmaxShape>{{1300, 130, 20}, {70, 9000, 4}};
  const auto expect_same_bits = [&](const SoftmaxShape& shape, Precision precision) {
    Case one(shape);
    one.run(*this, 1, precision);
    for (int num_threads = 2; num_threads <= most_threads(); ++num_threads) {
      Case several(shape);
      several.run(*this, num_threads, precision);
      EXPECT_EQ(several.loss[0], one.loss[0]);
      EXPECT_EQ(several.d_hidden.raw(), one.d_hidden.raw());
      EXPECT_EQ(several.d_targets.raw(), one.d_targets.raw());
      EXPECT_EQ(several.d_negatives.raw(), one.d_negatives.raw());
    }
  };
  for (const SoftmaxShape& shape : shapes) expect_same_bits(shape, Precision::kFp32);
  if (!tests_run_on_devices()) return;
  expect_same_bits(shapes[0], Precision::kBf16);
  expect_same_bits(shapes[1], Precision::kTf32);
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

// To 11 bits, to nearest.
double round_to_tf32(double x) {
  int exponent = 0;
  const double mantissa = std::frexp(x, &exponent);
  return std::ldexp(std::round(std::ldexp(mantissa, 11)), exponent - 11);
}

reference::Matrix rounded(Precision precision, reference::Matrix m) {
  for (double& x : m.values) {
    if (precision == Precision::kTf32) x = round_to_tf32(x);
    if (precision == Precision::kBf16) x = static_cast<float>(BFloat16(static_cast<float>(x)));
  }
  return m;
}

// Expected values, and for each the sum of the sizes of its terms.
struct Expected {
  Expected(std::int64_t rows, std::int64_t cols) : value(rows, cols), size(rows, cols) {}
  void add(std::int64_t r, std::int64_t c, double x) {
    value(r, c) += x;
    size(r, c) += std::abs(x);
  }
  reference::Matrix value, size;
};

void expect_within(double bound, const TestMatrix& actual, const Expected& expected) {
  ASSERT_TRUE(actual.guards_hold());
  for (std::int64_t r = 0; r < expected.value.rows; ++r) {
    for (std::int64_t c = 0; c < expected.value.cols; ++c) {
      ASSERT_NEAR(actual(r, c), expected.value(r, c), bound * expected.size(r, c))
          << "row " << r << ", column " << c;
    }
  }
}

struct SoftmaxRounding {
  Precision asked_for, of_rows;
  double of_weights;  // at most so much of themselves
};

// Tensor cores against the softmax in double of rows that are rounded as theirs are, but the
// target's logit and what is made of its row alone. What is left are the exponentials, which are
// rounded before they multiply rows, and fp32: logits, of terms whose sizes add up to `largest` at
// most, are off by (dim + 4) 2^-23 of it, which the exponential makes a relative error, and no sum
// has chains of more than 256 terms.
void expect_agrees_on_tensor_cores(TestStreams& on, const SoftmaxShape& shape,
                                   const SoftmaxRounding& rounding) {
  SCOPED_TRACE(to_string(rounding.asked_for));
  Case c(shape);
  c.run(on, 1, rounding.asked_for);
  const reference::Matrix h = c.hidden.in_double(), targets = c.targets.in_double(),
                          rounded_h = rounded(rounding.of_rows, h),
                          x = rounded(rounding.of_rows, c.negatives.in_double());
  Expected d_hidden(shape.n, shape.dim), d_targets(shape.n, shape.dim),
      d_negatives(shape.num_negatives, shape.dim);
  for (std::int64_t i = 0; i < shape.num_negatives; ++i) {
    for (std::int64_t k = 0; k < shape.dim; ++k) d_negatives.add(i, k, Case::kBefore);
  }
  double loss = 0, largest = 0;
  const auto logit = [&](const reference::Matrix& a, const reference::Matrix& b, std::int64_t t,
                         std::int64_t i) {
    double sum = 0, size = 0;
    for (std::int64_t k = 0; k < shape.dim; ++k) {
      sum += a(t, k) * b(i, k);
      size += std::abs(a(t, k) * b(i, k));
    }
    largest = std::max(largest, size * Case::kInverseTemperature);
    return sum * Case::kInverseTemperature;
  };
  for (std::int64_t t = 0; t < shape.n; ++t) {
    const double target = logit(h, targets, t, t);
    std::vector<double> odds(shape.num_negatives);
    double total = 1;
    for (std::int64_t i = 0; i < shape.num_negatives; ++i) {
      if (c.negative_ids[i] != c.target_ids[t])
        odds[i] = std::exp(logit(rounded_h, x, t, i) - target);
      total += odds[i];
    }
    loss += std::log(total);
    constexpr double kScale = double{Case::kDLoss} * Case::kInverseTemperature;
    for (std::int64_t k = 0; k < shape.dim; ++k) {
      for (std::int64_t i = 0; i < shape.num_negatives; ++i) {
        const double p = kScale * odds[i] / total;
        d_hidden.add(t, k, p * x(i, k));
        d_negatives.add(i, k, p * rounded_h(t, k));
      }
      const double others = kScale * (total - 1) / total;
      d_hidden.add(t, k, -others * targets(t, k));
      d_targets.add(t, k, -others * h(t, k));
    }
  }
  const double of_logits = 2 * largest * static_cast<double>(shape.dim + 4) * 0x1p-23;
  const double fp32 = of_logits + 256 * 0x1p-23;
  ASSERT_LT(of_logits, 1e-3) << "the bound is too wide to be worth anything";
  EXPECT_NEAR(c.loss[0], loss, static_cast<double>(shape.n) * fp32);
  expect_within(2 * fp32, c.d_targets, d_targets);
  expect_within(2 * fp32 + rounding.of_weights, c.d_hidden, d_hidden);
  expect_within(2 * fp32 + rounding.of_weights, c.d_negatives, d_negatives);
}

// Rows of every width of tile, full and not; tiles of tokens and negatives that are not full; rows
// that are aligned and others (a row has dim + 3 floats); rows too wide for tensor cores.
class TensorCoreShapes : public KernelTestOver<SoftmaxShape> {};
INSTANTIATE_TEST_SUITE_P(
    Shapes, TensorCoreShapes,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Values(SoftmaxShape{0, 3, 16}, SoftmaxShape{3, 0, 16},
                                     SoftmaxShape{1, 1, 1}, SoftmaxShape{70, 130, 5, 0.5f},
                                     SoftmaxShape{18, 65, 32, 0.125f},
                                     SoftmaxShape{3, 70, 61, 0.1f}, SoftmaxShape{65, 9, 100, 0.05f},
                                     SoftmaxShape{5, 200, 128, 0.05f},
                                     SoftmaxShape{9, 70, 253, 0.02f},
                                     SoftmaxShape{3, 40, 256, 0.02f},
                                     SoftmaxShape{1, 5, 257, 0.02f}, SoftmaxShape{2, 10'000, 4})));

TEST_P(TensorCoreShapes, AgreeWithTheReferenceOfRoundedRows) {
  if (!tests_run_on_devices()) {
    for (const Precision precision : {Precision::kTf32, Precision::kBf16}) {
      EXPECT_THROW(Case(param()).run(*this, 1, precision), Error);
    }
  } else if (param().dim > 256) {
    expect_agrees_on_tensor_cores(*this, param(), {Precision::kBf16, Precision::kFp32, 0});
  } else {
    expect_agrees_on_tensor_cores(*this, param(), {Precision::kTf32, Precision::kTf32, 0x1p-11});
    expect_agrees_on_tensor_cores(*this, param(), {Precision::kBf16, Precision::kBf16, 0x1p-8});
  }
}

// Few negatives: several blocks, once more than 16, share a tile, and the last one adds up what
// they found.
TEST_P(SampledSoftmaxTest, TokensInChunks) {
  if (!tests_run_on_devices()) GTEST_SKIP() << "the CPU goes through all tokens in turn";
  const SoftmaxRounding fp32{Precision::kFp32, Precision::kFp32, 0};
  expect_agrees_on_tensor_cores(*this, {1100, 5, 4}, fp32);
  expect_agrees_on_tensor_cores(*this, {130, 70, 101, 0.05f}, fp32);
  const SoftmaxRounding bf16{Precision::kBf16, Precision::kBf16, 0x1p-8};
  expect_agrees_on_tensor_cores(*this, {300, 70, 12, 0.25f}, bf16);
  expect_agrees_on_tensor_cores(*this, {300, 9, 7, 0.25f}, bf16);
}

// A logit of 1 + 2^-9, of which bf16 has 1 left; the target's logit is exact in either.
TEST_P(SampledSoftmaxTest, PrecisionByHand) {
  if (!tests_run_on_devices()) GTEST_SKIP() << "the CPU has fp32 alone";
  const auto loss_of = [&](Precision precision, float negative, float target) {
    TestMatrix hidden(1, 1, 1), targets(1, 1, target), negatives(1, 1, negative);
    const TestArray<std::int64_t> target_ids{0}, negative_ids{1};
    const TestArray<double> loss(1);
    sampled_softmax({.hidden = hidden.on(stream),
                     .targets = targets.on(stream),
                     .negatives = negatives.on(stream),
                     .target_ids = target_ids.on(stream),
                     .negative_ids = negative_ids.on(stream),
                     .precision = precision},
                    loss.on(stream), stream);
    return loss[0];
  };
  const auto exact = [](double x) { return std::log1p(std::exp(x)); };
  EXPECT_NEAR(loss_of(Precision::kTf32, 1 + 0x1p-9f, 0), exact(1 + 0x1p-9), 1e-6);
  EXPECT_NEAR(loss_of(Precision::kBf16, 1 + 0x1p-9f, 0), exact(1), 1e-6);
  EXPECT_NEAR(loss_of(Precision::kTf32, 1 + 0x1p-12f, 0), exact(1), 1e-6);
  EXPECT_NEAR(loss_of(Precision::kBf16, 0, 1 + 0x1p-9f), exact(-1 - 0x1p-9), 1e-6);
}

// NaN must not become a number or infinity where rows are rounded, whatever its bits: of the last
// one none are among those that tensor cores read. A logit of -infinity would be no loss at all.
TEST_P(SampledSoftmaxTest, NotANumberStaysSo) {
  if (!tests_run_on_devices()) GTEST_SKIP() << "the CPU has fp32 alone";
  for (const Precision precision : {Precision::kTf32, Precision::kBf16}) {
    for (const std::uint32_t bits : {0x7fffffffu, 0xffffffffu, 0x7f800001u, 0xff800001u}) {
      SCOPED_TRACE(testing::Message() << to_string(precision) << ", " << bits);
      Case c({2, 3, 5});
      c.negatives(1, 4) = std::bit_cast<float>(bits);
      c.run(*this, 1, precision);
      EXPECT_TRUE(std::isnan(c.loss[0]));
      EXPECT_TRUE(std::isnan(c.d_hidden(0, 4)));
    }
  }
}

}  // namespace
}  // namespace serrate
