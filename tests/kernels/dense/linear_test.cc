#include "serrate/kernels/linear.h"

#include "serrate/error.h"
#include "tests/kernels/host_matrix.h"

namespace serrate {
namespace {

TEST(Linear, AgreesWithProductsByHand) {
  HostMatrix x = host_matrix(2, 3, {1, 2, 3, 0, -1, 1});
  HostMatrix weight = host_matrix(2, 3, {1, 0, -1, 2, 1, 0});
  std::vector<float> bias{10, 20};
  HostMatrix y(2, 2);
  linear_forward({x.view(), weight.view(), bias, y.view()}, Stream());
  expect_close(y, host_matrix(2, 2, {8, 24, 9, 19}).in_double(), 0);
}

TEST(Linear, BackwardAddsToTheGradientsOfParameters) {
  HostMatrix x = host_matrix(2, 1, {3, 4});
  HostMatrix weight = host_matrix(1, 1, {2});
  HostMatrix d_y = host_matrix(2, 1, {10, 100});
  HostMatrix d_x(2, 1), d_weight(1, 1, 1000);
  std::vector<float> d_bias{5};
  linear_backward({x.view(), weight.view(), d_y.view(), d_x.view(), d_weight.view(), d_bias},
                  Stream());
  expect_close(d_x, host_matrix(2, 1, {20, 200}).in_double(), 0);
  EXPECT_EQ(d_weight.view().data[0], 1430);
  EXPECT_EQ(d_bias[0], 115);
}

struct Shape {
  std::int64_t n, in, out;
};
class LinearShapes : public testing::TestWithParam<Shape> {};

// Sides of whole vectors and others, which take different paths; and more rows than one chunk of
// the sums (512).
INSTANTIATE_TEST_SUITE_P(Shapes, LinearShapes,
                         testing::Values(Shape{0, 4, 4}, Shape{1, 1, 1}, Shape{3, 17, 5},
                                         Shape{65, 8, 33}, Shape{1100, 3, 2}, Shape{0, 16, 16},
                                         Shape{1, 16, 32}, Shape{70, 16, 48}, Shape{70, 48, 16},
                                         Shape{130, 16, 16}));

struct Linear {
  explicit Linear(const Shape& s)
      : x(HostMatrix::random(s.n, s.in, 1)),
        weight(HostMatrix::random(s.out, s.in, 2)),
        bias(HostMatrix::random(1, s.out, 3)),
        y(s.n, s.out),
        d_y(HostMatrix::random(s.n, s.out, 4)),
        d_x(s.n, s.in),
        d_weight(s.out, s.in),
        d_bias(1, s.out) {}

  void run(int num_threads) {
    const Stream stream(Device::cpu(), num_threads);
    linear_forward({x.view(), weight.view(), only_row(bias), y.view()}, stream);
    linear_backward(
        {x.view(), weight.view(), d_y.view(), d_x.view(), d_weight.view(), only_row(d_bias)},
        stream);
  }

  HostMatrix x, weight, bias, y, d_y, d_x, d_weight, d_bias;
};

TEST_P(LinearShapes, AgreesWithTheReference) {
  Linear linear(GetParam());
  linear.run(1);
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
TEST(Linear, WideWeights) {
  Linear linear({600, 272, 272});
  linear.run(2);
  const reference::Matrix x = linear.x.in_double(), weight = linear.weight.in_double(),
                          d_y = linear.d_y.in_double();
  expect_close(linear.y, reference::linear(x, weight, linear.bias.in_double()), 2e-5);
  expect_close(linear.d_x, reference::linear(d_y, transposed(weight), {}), 2e-5);
  expect_close(linear.d_weight, reference::linear(transposed(d_y), transposed(x), {}), 5e-5);
}

TEST_P(LinearShapes, ThreadsChangeNoBits) {
  Linear one(GetParam());
  one.run(1);
  for (const int num_threads : {2, 3}) {
    Linear several(GetParam());
    several.run(num_threads);
    EXPECT_EQ(several.y.raw(), one.y.raw());
    EXPECT_EQ(several.d_x.raw(), one.d_x.raw());
    EXPECT_EQ(several.d_weight.raw(), one.d_weight.raw());
    EXPECT_EQ(several.d_bias.raw(), one.d_bias.raw());
  }
}

TEST(Linear, WithoutBiasAndWithoutInputGradient) {
  HostMatrix x = host_matrix(1, 2, {3, 4}), weight = host_matrix(1, 2, {2, 1}), y(1, 1, 99);
  linear_forward({x.view(), weight.view(), {}, y.view()}, Stream());
  EXPECT_EQ(y.view().data[0], 10);
  HostMatrix d_weight(1, 2);
  linear_backward({x.view(), weight.view(), y.view(), {}, d_weight.view(), {}}, Stream());
  expect_close(d_weight, host_matrix(1, 2, {30, 40}).in_double(), 0);
}

TEST(Linear, ShapesThatDoNotFitAreErrors) {
  HostMatrix x(2, 3), weight(4, 2), y(2, 4);
  EXPECT_THROW(linear_forward({x.view(), weight.view(), {}, y.view()}, Stream()), Error);
}

}  // namespace
}  // namespace serrate
