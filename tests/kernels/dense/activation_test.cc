#include "serrate/kernels/activation.h"

#include "serrate/error.h"
#include "tests/kernels/host_matrix.h"

namespace serrate {
namespace {

class ActivationTest : public testing::TestWithParam<Activation> {};
INSTANTIATE_TEST_SUITE_P(All, ActivationTest,
                         testing::Values(Activation::kGelu, Activation::kRelu, Activation::kSilu),
                         [](const auto& test) { return to_string(test.param); });

TEST(Activation, KnownValues) {
  HostMatrix x = host_matrix(1, 3, {-1, 0, 1}), y(1, 3);
  activation_forward(Activation::kGelu, x.view(), y.view(), Stream());
  expect_close(y, host_matrix(1, 3, {-0.15865525f, 0, 0.84134475f}).in_double(), 1e-6);
  activation_forward(Activation::kSilu, x.view(), y.view(), Stream());
  expect_close(y, host_matrix(1, 3, {-0.26894142f, 0, 0.73105858f}).in_double(), 1e-6);
  activation_forward(Activation::kRelu, x.view(), y.view(), Stream());
  expect_close(y, host_matrix(1, 3, {0, 0, 1}).in_double(), 0);
}

// Every 1/64 from -16 to 16, and values whose exponentials overflow.
HostMatrix sweep() {
  std::vector<float> values{-1e30f, -1000, -100, 100, 1000, 1e30f};
  for (int i = -1024; i <= 1024; ++i) values.push_back(static_cast<float>(i) / 64);
  return host_matrix(1, std::ssize(values), values);
}

TEST_P(ActivationTest, AgreesWithTheReferenceEverywhere) {
  HostMatrix x = sweep(), y(1, x.view().cols), d_x(1, x.view().cols), ones(1, x.view().cols, 1);
  activation_forward(GetParam(), x.view(), y.view(), Stream());
  expect_close(y, reference::activation(GetParam(), x.in_double()), 2e-6);

  activation_backward(GetParam(), x.view(), ones.view(), d_x.view(), Stream());
  reference::Matrix above = x.in_double(), below = x.in_double();
  for (double& v : above.values) v += 1e-5;
  for (double& v : below.values) v -= 1e-5;
  above = reference::activation(GetParam(), above);
  below = reference::activation(GetParam(), below);
  for (std::int64_t c = 0; c < x.view().cols; ++c) {
    const float at = x.view().data[c];
    if (std::abs(at) > 1e6f) {  // too large for differences: the limits
      EXPECT_EQ(d_x.view().data[c], at > 0 ? 1 : 0);
    } else if (at != 0 || GetParam() != Activation::kRelu) {  // not where it has a corner
      EXPECT_NEAR(d_x.view().data[c], (above(0, c) - below(0, c)) / 2e-5, 2e-6) << at;
    }
  }
}

TEST_P(ActivationTest, InPlaceOnAnyShapeAndThreads) {
  for (const std::int64_t cols : {0, 1, 7, 16, 33}) {
    HostMatrix x = HostMatrix::random(70, cols, 1, 3), y(70, cols);
    HostMatrix d_y = HostMatrix::random(70, cols, 2), d_x(70, cols);
    activation_forward(GetParam(), x.view(), y.view(), Stream());
    activation_backward(GetParam(), x.view(), d_y.view(), d_x.view(), Stream());
    EXPECT_TRUE(y.guards_hold() && d_x.guards_hold());

    const Stream two_threads(Device::cpu(), 2);
    HostMatrix in_place = x;
    activation_forward(GetParam(), in_place.view(), in_place.view(), two_threads);
    EXPECT_EQ(in_place.raw(), y.raw());
    activation_backward(GetParam(), x.view(), d_y.view(), d_y.view(), two_threads);
    EXPECT_EQ(d_y.raw(), d_x.raw());
  }
}

TEST_P(ActivationTest, NamesGoBothWays) {
  EXPECT_EQ(activation_from_string(to_string(GetParam())), GetParam());
  EXPECT_THROW(activation_from_string("tanh"), Error);
}

}  // namespace
}  // namespace serrate
