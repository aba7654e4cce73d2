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

  void run(TestStreams& on, int num_threads) {
    const Stream& stream = on.threads(num_threads);
    linear_forward({x.on(stream), weight.on(stream), bias.row_on(stream), y.on(stream)}, stream);
    linear_backward({x.on(stream), weight.on(stream), d_y.on(stream), d_x.on(stream),
                     d_weight.on(stream), d_bias.row_on(stream)},
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
