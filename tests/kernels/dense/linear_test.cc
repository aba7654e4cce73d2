#include "serrate/kernels/linear.h"

#include "serrate/buffer.h"
#include "serrate/error.h"
#include "serrate/kernels/round_to_bfloat16.h"
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

  /// From and to bfloat16; the factors and results here are rounded.
  void run_in_bf16(const Stream& stream) {
    const TestHalves x16(x), weight16(weight), bias16(bias), y16(y), d_y16(d_y), d_x16(d_x);
    linear_forward(
        {x16.on(stream), weight16.on(stream), bias16.on(stream), y16.on(stream), Precision::kBf16},
        stream);
    linear_backward({x16.on(stream), weight16.on(stream), d_y16.on(stream), d_x16.on(stream),
                     d_weight.on(stream), d_bias.row_on(stream), Precision::kBf16},
                    stream);
    const auto read = [](const TestHalves& from, TestMatrix& to) { to = from.in_float(); };
    read(x16, x), read(weight16, weight), read(bias16, bias), read(y16, y);
    read(d_y16, d_y), read(d_x16, d_x);
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
  for (int num_threads = 2; num_threads <= most_threads(); ++num_threads) {
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

struct Rounding {
  double of_factors = 0, of_result = 0;
};

// y = a b^T + bias of factors that are rounded by u at most: each product is off by 2 u + u^2 of
// itself, and a sum of k of them and the bias by k + 1 roundings of fp32, or cuts. Then the sum is
// rounded.
void expect_rounded_by(const Rounding& by, const TestMatrix& actual, const reference::Matrix& a,
                       const reference::Matrix& b, const reference::Matrix& bias) {
  ASSERT_TRUE(actual.guards_hold());
  const reference::Matrix exact = reference::linear(a, b, bias);
  const reference::Matrix sizes = reference::linear(magnitudes(a), magnitudes(b), magnitudes(bias));
  const double u = by.of_factors;
  const double of_sum = 2 * u + u * u + static_cast<double>(a.cols + 1) * 0x1p-23;
  for (std::int64_t r = 0; r < exact.rows; ++r) {
    for (std::int64_t c = 0; c < exact.cols; ++c) {
      const double bound =
          of_sum * sizes(r, c) * (1 + by.of_result) + std::abs(exact(r, c)) * by.of_result;
      ASSERT_LE(std::abs(actual(r, c) - exact(r, c)), bound) << r << ", " << c;
    }
  }
}

TEST_P(LinearShapes, TensorCoresRoundByNoMoreThanTheirPrecision) {
  if (!tests_run_on_devices()) {
    Linear linear(param());
    EXPECT_THROW(linear.run(*this, 1, Precision::kTf32), Error);
    EXPECT_THROW(linear.run_in_bf16(stream), Error);
    return;
  }
  for (const auto precision : {Precision::kTf32, Precision::kBf16}) {
    SCOPED_TRACE(to_string(precision));
    Linear linear(param());
    const bool is_bf16 = precision == Precision::kBf16;
    is_bf16 ? linear.run_in_bf16(stream) : linear.run(*this, 1, precision);
    const Rounding by = is_bf16 ? Rounding{.of_result = 0x1p-8} : Rounding{.of_factors = 0x1p-10};
    const reference::Matrix x = linear.x.in_double(), weight = linear.weight.in_double(),
                            d_y = linear.d_y.in_double();
    expect_rounded_by(by, linear.y, x, weight, linear.bias.in_double());
    expect_rounded_by(by, linear.d_x, d_y, transposed(weight), {});
    expect_rounded_by({.of_factors = by.of_factors}, linear.d_weight, transposed(d_y),
                      transposed(x), {});
    reference::Matrix ones(1, param().n);
    std::ranges::fill(ones.values, 1.0);
    expect_rounded_by({}, linear.d_bias, ones, transposed(d_y), {});
  }
}

// Factors of 1 + 2^-12, which tf32 makes 1, and of 1 + 2^-9, which it keeps. With its padding a row
// of 61 is aligned as tensor cores want it.
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
}

// bf16 keeps 1 + 2^-7. The sum of 61 of them, 61 + 61 / 128, has more than 8 bits.
TEST_P(LinearTest, Bf16ByHand) {
  constexpr std::int64_t kSide = 61;
  constexpr float kFactor = 1 + 0x1p-7f;
  Linear linear({kSide, kSide, kSide});
  linear.x = linear.d_y = TestMatrix(kSide, kSide, kFactor);
  linear.weight = TestMatrix(kSide, kSide, 1);
  linear.bias = TestMatrix(1, kSide);
  if (!tests_run_on_devices()) {
    EXPECT_THROW(linear.run_in_bf16(stream), Error);
    return;
  }
  linear.run_in_bf16(stream);
  EXPECT_EQ(linear.y(0, kSide - 1), 61.5f);
  EXPECT_EQ(linear.d_x(kSide - 1, 0), 61.5f);
  EXPECT_EQ(linear.d_weight(kSide - 1, 0), kSide * kFactor * kFactor);
  EXPECT_EQ(linear.d_bias(0, kSide - 1), kSide * kFactor);
}

// To nearest, halves to even; of whole vectors and a rest.
TEST_P(LinearTest, WeightsAreRoundedToBfloat16) {
  const TestArray<float> values{1, 1 + 0x1p-8f, 1 + 0x3p-8f, 1 + 0x1.1p-7f, -3e38f, 0x1p-130f, 0};
  const TestArray<BFloat16> rounded(values.size());
  round_to_bfloat16(values.on(stream), rounded.on(stream), stream);
  std::vector<float> found;
  for (const BFloat16& value : rounded.host()) found.push_back(static_cast<float>(value));
  EXPECT_EQ(found,
            (std::vector<float>{1, 1, 1 + 0x1p-6f, 1 + 0x1p-7f, -0x1.c4p127f, 0x1p-130f, 0}));
  EXPECT_THROW(round_to_bfloat16(values.on(stream), rounded.on(stream).first(2), stream), Error);
}

TEST_P(LinearTest, WithoutBiasAndWithoutInputGradient) {
  TestMatrix x = test_matrix(1, 2, {3, 4}), weight = test_matrix(1, 2, {2, 1}), y(1, 1, 99);
  linear_forward({x.on(stream), weight.on(stream), {}, y.on(stream)}, stream);
  EXPECT_EQ(y(0, 0), 10);
  // An empty one, behind which there is something.
  const TestArray<float> others{500};
  y(0, 0) = 99;
  linear_forward({x.on(stream), weight.on(stream), others.on(stream).first(0), y.on(stream)},
                 stream);
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

TEST_P(LinearTest, StorageThatIsNotThePrecisionsIsAnError) {
  TestMatrix x(2, 3), weight(4, 3), y(2, 4);
  const TestHalves x16(x), weight16(weight);
  for (const auto precision : {Precision::kFp32, Precision::kTf32, Precision::kBf16}) {
    const LinearForward half{x16.on(stream), weight16.on(stream), {}, y.on(stream), precision};
    EXPECT_THROW(linear_forward(half, stream), Error);
  }
  EXPECT_THROW(
      linear_forward({x.on(stream), weight.on(stream), {}, y.on(stream), Precision::kBf16}, stream),
      Error);
}

}  // namespace
}  // namespace serrate
