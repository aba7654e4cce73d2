#include "serrate/kernels/activation.h"

#include "serrate/error.h"
#include "tests/kernels/test_matrix.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class ActivationFunctions : public KernelTestOver<Activation> {};
INSTANTIATE_TEST_SUITE_P(All, ActivationFunctions,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(Activation::kGelu, Activation::kGeluTanh,
                                                          Activation::kRelu, Activation::kSilu)));

class ActivationTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, ActivationTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(ActivationTest, NamesAMatrixOfAnotherType) {
  const OutputMatrix half(nullptr, DataType::kFloat16, 0, 0);
  const auto forward = [&] { activation_forward(Activation::kRelu, half, half, stream); };
  const auto backward = [&] { activation_backward(Activation::kRelu, half, half, half, stream); };
  expect_error(forward, "activation: x is of fp16");
  expect_error(backward, "activation: x is of fp16");
}

TEST_P(ActivationTest, KnownValues) {
  TestMatrix x = test_matrix(1, 3, {-1, 0, 1}), y(1, 3);
  activation_forward(Activation::kGelu, x.on(stream), y.on(stream), stream);
  expect_close(y, test_matrix(1, 3, {-0.15865525f, 0, 0.84134475f}).in_double(), 1e-6);
  activation_forward(Activation::kGeluTanh, x.on(stream), y.on(stream), stream);
  expect_close(y, test_matrix(1, 3, {-0.15880801f, 0, 0.84119199f}).in_double(), 1e-6);
  activation_forward(Activation::kSilu, x.on(stream), y.on(stream), stream);
  expect_close(y, test_matrix(1, 3, {-0.26894142f, 0, 0.73105858f}).in_double(), 1e-6);
  activation_forward(Activation::kRelu, x.on(stream), y.on(stream), stream);
  expect_close(y, test_matrix(1, 3, {0, 0, 1}).in_double(), 0);
}

// Every 1/64 from -16 to 16, and values whose exponentials overflow.
TestMatrix sweep() {
  std::vector<float> values{-1e30f, -1000, -100, 100, 1000, 1e30f};
  for (int i = -1024; i <= 1024; ++i) values.push_back(static_cast<float>(i) / 64);
  return test_matrix(1, std::ssize(values), values);
}

TEST_P(ActivationFunctions, AgreesWithTheReferenceEverywhere) {
  TestMatrix x = sweep(), y(1, x.cols()), d_x(1, x.cols()), ones(1, x.cols(), 1);
  activation_forward(param(), x.on(stream), y.on(stream), stream);
  expect_close(y, reference::activation(param(), x.in_double()), 2e-6);

  activation_backward(param(), x.on(stream), ones.on(stream), d_x.on(stream), stream);
  reference::Matrix above = x.in_double(), below = x.in_double();
  for (double& v : above.values) v += 1e-5;
  for (double& v : below.values) v -= 1e-5;
  above = reference::activation(param(), above);
  below = reference::activation(param(), below);
  for (std::int64_t c = 0; c < x.cols(); ++c) {
    const float at = x(0, c);
    if (std::abs(at) > 1e6f) {  // too large for differences: the limits
      EXPECT_NEAR(d_x(0, c), at > 0 ? 1 : 0, 1e-30);
    } else if (at != 0 || param() != Activation::kRelu) {  // not where it has a corner
      EXPECT_NEAR(d_x(0, c), (above(0, c) - below(0, c)) / 2e-5, 2e-6) << at;
    }
  }
}

TEST_P(ActivationFunctions, InPlaceOnAnyShapeAndThreads) {
  for (const std::int64_t cols : {0, 1, 7, 16, 33}) {
    TestMatrix x = TestMatrix::random(70, cols, 1, 3), y(70, cols);
    TestMatrix d_y = TestMatrix::random(70, cols, 2), d_x(70, cols);
    activation_forward(param(), x.on(stream), y.on(stream), stream);
    activation_backward(param(), x.on(stream), d_y.on(stream), d_x.on(stream), stream);
    EXPECT_TRUE(y.guards_hold() && d_x.guards_hold());

    const Stream& two_threads = threads(2);
    TestMatrix in_place = TestMatrix::random(70, cols, 1, 3);  // as x
    activation_forward(param(), in_place.on(stream), in_place.on(stream), two_threads);
    EXPECT_EQ(in_place.raw(), y.raw());
    activation_backward(param(), x.on(stream), d_y.on(stream), d_y.on(stream), two_threads);
    EXPECT_EQ(d_y.raw(), d_x.raw());
  }
}

TEST_P(ActivationFunctions, OfBfloat16) {
  for (const std::int64_t cols : {0, 1, 13, 33}) {
    TestMatrix x = rounded_to_halves(TestMatrix::random(70, cols, 1, 3)), y(70, cols);
    TestMatrix d_y = rounded_to_halves(TestMatrix::random(70, cols, 2)), d_x(70, cols);
    const TestHalves x16(x), y16(y), d_y16(d_y);
    const auto run = [&] {
      activation_forward(param(), x16.on(stream), y16.on(stream), stream);
      activation_backward(param(), x16.on(stream), d_y16.on(stream), d_y16.on(stream), stream);
    };
    if (!tests_run_on_devices()) {
      EXPECT_THROW(run(), Error);
      return;
    }
    run();
    activation_forward(param(), x.on(stream), y.on(stream), stream);
    activation_backward(param(), x.on(stream), d_y.on(stream), d_x.on(stream), stream);
    EXPECT_EQ(y16.in_float().raw(), rounded_to_halves(y).raw());
    EXPECT_EQ(d_y16.in_float().raw(), rounded_to_halves(d_x).raw());
    EXPECT_THROW(activation_forward(param(), x16.on(stream), y.on(stream), stream), Error);
  }
}

TEST_P(ActivationFunctions, NamesGoBothWays) {
  EXPECT_EQ(activation_from_string(to_string(param())), param());
  EXPECT_THROW(activation_from_string("tanh"), Error);
}

}  // namespace
}  // namespace serrate
