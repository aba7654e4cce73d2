#include "serrate/kernels/linear.h"

#include "serrate/error.h"
#include "tests/kernels/test_matrix.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class LinearTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, LinearTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(LinearTest, AgreesWithProductsByHand) {
  TestMatrix x = test_matrix(2, 3, {1, 2, 3, 0, -1, 1});
  TestMatrix weight = test_matrix(2, 3, {1, 0, -1, 2, 1, 0});
  const TestArray<float> bias{10, 20};
  TestMatrix y(2, 2);
  linear_forward({x.on(stream), weight.on(stream), bias.on(stream), y.on(stream)}, stream);
  expect_close(y, test_matrix(2, 2, {8, 24, 9, 19}).in_double(), 0);
}

TEST_P(LinearTest, BackwardAddsToTheGradientsOfParameters) {
  TestMatrix x = test_matrix(2, 1, {3, 4});
  TestMatrix weight = test_matrix(1, 1, {2});
  TestMatrix d_y = test_matrix(2, 1, {10, 100});
  TestMatrix d_x(2, 1), d_weight(1, 1, 1000);
  const TestArray<float> d_bias{5};
  linear_backward({x.on(stream), weight.on(stream), d_y.on(stream), d_x.on(stream),
                   d_weight.on(stream), d_bias.on(stream)},
                  stream);
  expect_close(d_x, test_matrix(2, 1, {20, 200}).in_double(), 0);
  EXPECT_EQ(d_weight(0, 0), 1430);
  EXPECT_EQ(d_bias[0], 115);
}

struct Shape {
  std::int64_t n, in, out;
};
class LinearShapes : public KernelTestOver<Shape> {};

// Sides of whole vectors and others, which take different paths; and more rows than one chunk of
// the sums (512).
std::vector<Shape> shapes() {
  if (tests_run_on_devices()) {
    return {{0, 4, 4}, {1, 1, 1}, {3, 17, 5}, {65, 4, 9}, {300, 3, 2}, {1, 16, 32}, {9, 16, 24}};
  }
  return {{0, 4, 4},   {1, 1, 1},   {3, 17, 5},   {65, 8, 33},  {1100, 3, 2},
          {0, 16, 16}, {1, 16, 32}, {70, 16, 48}, {70, 48, 16}, {130, 16, 16}};
}
INSTANTIATE_TEST_SUITE_P(Shapes, LinearShapes,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::ValuesIn(shapes())));

struct Linear {
  explicit Linear(const Shape& s)
      : x(TestMatrix::random(s.n, s.in, 1)),
        weight(TestMatrix::random(s.out, s.in, 2)),
        bias(TestMatrix::random(1, s.out, 3)),
        y(s.n, s.out),
        d_y(TestMatrix::random(s.n, s.out, 4)),
        d_x(s.n, s.in),
        d_weight(s.out, s.in),
        d_bias(1, s.out) {}

  void run(TestStreams& on, int num_threads, Precision precision = Precision::kFp32) {
    const Stream& stream = on.threads(num_threads);
    linear_forward({x.on(stream), weight.on(stream), bias.row_on(stream), y.on(stream), precision},
                   stream);
    linear_backward({x.on(stream), weight.on(stream), d_y.on(stream), d_x.on(stream),
                     d_weight.on(stream), d_bias.row_on(stream), precision},
                    stream);
  }

  TestMatrix x, weight, bias, y, d_y, d_x, d_weight, d_bias;
};

TEST_P(LinearShapes, AgreesWithTheReference) {
  Linear linear(param());
  linear.run(*this, 1);
  reference::Matrix x = linear.x.in_double(), weight = linear.weight.in_double(),
                    bias = linear.bias.in_double();
  const reference::Matrix d_y = linear.d_y.in_double();
  const auto loss = [&] { return reference::dot(d_y, reference::linear(x, weight, bias)); };
  expect_close(linear.y, reference::linear(x, weight, bias), 1e-5);
  expect_close(linear.d_x, numeric_gradient(x, loss), 1e-5);
  expect_close(linear.d_weight, numeric_gradient(weight, loss), 1e-5);
  expect_close(linear.d_bias, numeric_gradient(bias, loss), 1e-5);
}

// Beyond what central differences can do in good time: the products that the gradients are.
TEST_P(LinearTest, WideWeights) {
  Linear linear(tests_run_on_devices() ? Shape{300, 40, 272} : Shape{600, 272, 272});
  linear.run(*this, 2);
  const reference::Matrix x = linear.x.in_double(), weight = linear.weight.in_double(),
                          d_y = linear.d_y.in_double();
  expect_close(linear.y, reference::linear(x, weight, linear.bias.in_double()), 2e-5);
  expect_close(linear.d_x, reference::linear(d_y, transposed(weight), {}), 2e-5);
  expect_close(linear.d_weight, reference::linear(transposed(d_y), transposed(x), {}), 5e-5);
}

TEST_P(LinearShapes, ThreadsChangeNoBits) {
  Linear one(param());
  one.run(*this, 1);
  for (const int num_threads : {2, 3}) {
    Linear several(param());
    several.run(*this, num_threads);
    EXPECT_EQ(several.y.raw(), one.y.raw());
    EXPECT_EQ(several.d_x.raw(), one.d_x.raw());
    EXPECT_EQ(several.d_weight.raw(), one.d_weight.raw());
    EXPECT_EQ(several.d_bias.raw(), one.d_bias.raw());
  }
}

reference::Matrix magnitudes(reference::Matrix matrix) {
  for (double& value : matrix.values) value = std::abs(value);
  return matrix;
}

// y = a b^T + bias of factors that are rounded by u at most: each product is off by 2 u + u^2 of
// itself, and a sum of k of them and the bias by k + 1 roundings of fp32, or cuts.
void expect_rounded_by(double u, const TestMatrix& actual, const reference::Matrix& a,
                       const reference::Matrix& b, const reference::Matrix& bias) {
  ASSERT_TRUE(actual.guards_hold());
  const reference::Matrix exact = reference::linear(a, b, bias);
  const reference::Matrix sizes = reference::linear(magnitudes(a), magnitudes(b), magnitudes(bias));
  const double bound = 2 * u + u * u + static_cast<double>(a.cols + 1) * 0x1p-23;
  for (std::int64_t r = 0; r < exact.rows; ++r) {
    for (std::int64_t c = 0; c < exact.cols; ++c) {
      ASSERT_LE(std::abs(actual(r, c) - exact(r, c)), bound * sizes(r, c)) << r << ", " << c;
    }
  }
}

TEST_P(LinearShapes, TensorCoresRoundFactorsByNoMoreThanTheirPrecision) {
  if (!tests_run_on_devices()) {
    Linear linear(param());
    EXPECT_THROW(linear.run(*this, 1, Precision::kTf32), Error);
    EXPECT_THROW(linear.run(*this, 1, Precision::kBf16), Error);
    return;
  }
  for (const auto& [precision, u] :
       {std::pair{Precision::kTf32, 0x1p-10}, {Precision::kBf16, 0x1p-8}}) {
    SCOPED_TRACE(to_string(precision));
    Linear linear(param());
    linear.run(*this, 1, precision);
    const reference::Matrix x = linear.x.in_double(), weight = linear.weight.in_double(),
                            d_y = linear.d_y.in_double();
    expect_rounded_by(u, linear.y, x, weight, linear.bias.in_double());
    expect_rounded_by(u, linear.d_x, d_y, transposed(weight), {});
    expect_rounded_by(u, linear.d_weight, transposed(d_y), transposed(x), {});
    reference::Matrix ones(1, param().n);
    std::ranges::fill(ones.values, 1.0);
    expect_rounded_by(0, linear.d_bias, ones, transposed(d_y), {});
  }
}

// Factors of 1 + 2^-12, which tf32 and bf16 make 1, and of 1 + 2^-9, which tf32 keeps. With its
// padding a row of 61 is aligned as tensor cores want it.
TEST_P(LinearTest, PrecisionByHand) {
  if (!tests_run_on_devices()) GTEST_SKIP() << "the CPU has fp32 alone";
  constexpr std::int64_t kSide = 61;
  const auto sums = [&](Precision precision, float factor) {
    TestMatrix x(kSide, kSide, factor), one(kSide, kSide, 1), y(kSide, kSide), d_x(kSide, kSide),
        d_weight(kSide, kSide), d_bias(1, kSide);
    linear_forward({x.on(stream), one.on(stream), {}, y.on(stream), precision}, stream);
    linear_backward({one.on(stream), one.on(stream), x.on(stream), d_x.on(stream),
                     d_weight.on(stream), d_bias.row_on(stream), precision},
                    stream);
    EXPECT_EQ(d_bias(0, kSide - 1), kSide * factor);  // never rounded
    EXPECT_EQ(d_x(0, 0), y(0, 0));
    EXPECT_EQ(d_weight(kSide - 1, 0), y(0, 0));
    return y(0, kSide - 1);
  };
  const float small = 1 + 0x1p-12f, large = 1 + 0x1p-9f;
  EXPECT_EQ(sums(Precision::kFp32, small), kSide * small);
  EXPECT_EQ(sums(Precision::kTf32, small), kSide);
  EXPECT_EQ(sums(Precision::kTf32, large), kSide * large);
  EXPECT_EQ(sums(Precision::kBf16, large), kSide);
}

TEST_P(LinearTest, WithoutBiasAndWithoutInputGradient) {
  TestMatrix x = test_matrix(1, 2, {3, 4}), weight = test_matrix(1, 2, {2, 1}), y(1, 1, 99);
  linear_forward({x.on(stream), weight.on(stream), {}, y.on(stream)}, stream);
  EXPECT_EQ(y(0, 0), 10);
  TestMatrix d_weight(1, 2);
  linear_backward({x.on(stream), weight.on(stream), y.on(stream), {}, d_weight.on(stream), {}},
                  stream);
  expect_close(d_weight, test_matrix(1, 2, {30, 40}).in_double(), 0);
}

TEST_P(LinearTest, ShapesThatDoNotFitAreErrors) {
  TestMatrix x(2, 3), weight(4, 2), y(2, 4);
  EXPECT_THROW(linear_forward({x.on(stream), weight.on(stream), {}, y.on(stream)}, stream), Error);
}

}  // namespace
}  // namespace serrate
