#include "serrate/kernels/layer_norm.h"

#include "tests/kernels/host_matrix.h"

namespace serrate {
namespace {

TEST(LayerNorm, AgreesWithOneRowByHand) {
  HostMatrix x = host_matrix(1, 2, {1, 5}), y(1, 2);
  std::vector<float> gamma{10, 1}, beta{0, 100}, mean(1), rstd(1);
  // Mean 3, variance 4: normalized -1 and 1.
  layer_norm_forward({x.view(), gamma, beta, y.view(), mean, rstd, 0}, Stream());
  expect_close(y, host_matrix(1, 2, {-10, 101}).in_double(), 1e-6);
  EXPECT_EQ(mean[0], 3);
  EXPECT_EQ(rstd[0], 0.5f);
}

TEST(LayerNorm, EqualValuesBecomeBeta) {
  HostMatrix x(2, 19, 1e4f), y(2, 19);
  std::vector<float> gamma(19, 3), beta(19, 7), mean(2), rstd(2);
  layer_norm_forward({x.view(), gamma, beta, y.view(), mean, rstd}, Stream());
  expect_close(y, HostMatrix(2, 19, 7).in_double(), 0);
}

struct Shape {
  std::int64_t n, dim;
};
class LayerNormShapes : public testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(Shapes, LayerNormShapes,
                         testing::Values(Shape{0, 4}, Shape{1, 1}, Shape{5, 17}, Shape{3, 64},
                                         Shape{2, 131}, Shape{1100, 3}));

struct LayerNorm {
  explicit LayerNorm(const Shape& s)
      : x(HostMatrix::random(s.n, s.dim, 1)),
        gamma(HostMatrix::random(1, s.dim, 2)),
        beta(HostMatrix::random(1, s.dim, 3)),
        y(s.n, s.dim),
        d_y(HostMatrix::random(s.n, s.dim, 4)),
        d_x(s.n, s.dim),
        d_gamma(1, s.dim),
        d_beta(1, s.dim),
        mean(s.n),
        rstd(s.n) {}

  void run(int num_threads, LayerNormBackward::Write write = LayerNormBackward::Write::kOverwrite) {
    const Stream stream(Device::cpu(), num_threads);
    layer_norm_forward({x.view(), only_row(gamma), only_row(beta), y.view(), mean, rstd, kEps},
                       stream);
    layer_norm_backward({x.view(), d_y.view(), only_row(gamma), mean, rstd, d_x.view(),
                         only_row(d_gamma), only_row(d_beta), write},
                        stream);
  }

  static constexpr float kEps = 1e-3f;
  HostMatrix x, gamma, beta, y, d_y, d_x, d_gamma, d_beta;
  std::vector<float> mean, rstd;
};

TEST_P(LayerNormShapes, AgreesWithTheReference) {
  LayerNorm norm(GetParam());
  norm.run(1);
  reference::Matrix x = norm.x.in_double(), gamma = norm.gamma.in_double(),
                    beta = norm.beta.in_double();
  const reference::Matrix d_y = norm.d_y.in_double();
  const auto y = [&] { return reference::layer_norm(x, gamma, beta, LayerNorm::kEps); };
  const auto loss = [&] { return reference::dot(d_y, y()); };
  expect_close(norm.y, y(), 1e-5);
  expect_close(norm.d_x, numeric_gradient(x, loss), 2e-5);
  expect_close(norm.d_gamma, numeric_gradient(gamma, loss), 1e-5);
  expect_close(norm.d_beta, numeric_gradient(beta, loss), 1e-5);
}

TEST_P(LayerNormShapes, ThreadsChangeNoBits) {
  LayerNorm one(GetParam());
  one.run(1);
  for (const int num_threads : {2, 3}) {
    LayerNorm several(GetParam());
    several.run(num_threads);
    EXPECT_EQ(several.y.raw(), one.y.raw());
    EXPECT_EQ(several.d_x.raw(), one.d_x.raw());
    EXPECT_EQ(several.d_gamma.raw(), one.d_gamma.raw());
    EXPECT_EQ(several.d_beta.raw(), one.d_beta.raw());
  }
}

TEST(LayerNorm, AccumulateAddsToInputGradient) {
  LayerNorm overwrite({4, 21}), accumulate({4, 21});
  overwrite.run(1);
  accumulate.d_x = HostMatrix(4, 21, 2);
  accumulate.run(1, LayerNormBackward::Write::kAccumulate);
  reference::Matrix expected = overwrite.d_x.in_double();
  for (double& value : expected.values) value += 2;
  expect_close(accumulate.d_x, expected, 1e-6);
}

TEST(LayerNorm, ParameterGradientsAreAddedTo) {
  LayerNorm once({4, 21}), twice({4, 21});
  once.run(1);
  twice.run(1);
  twice.run(1);
  reference::Matrix expected = once.d_gamma.in_double();
  for (double& value : expected.values) value *= 2;
  expect_close(twice.d_gamma, expected, 1e-6);
}

}  // namespace
}  // namespace serrate
