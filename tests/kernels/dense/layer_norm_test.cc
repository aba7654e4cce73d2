#include "serrate/kernels/layer_norm.h"

#include "serrate/error.h"
#include "tests/kernels/test_matrix.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class LayerNormTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, LayerNormTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(LayerNormTest, AgreesWithOneRowByHand) {
  TestMatrix x = test_matrix(1, 2, {1, 5}), y(1, 2);
  const TestArray<float> gamma{10, 1}, beta{0, 100}, mean(1), rstd(1);
  // Mean 3, variance 4: normalized -1 and 1.
  layer_norm_forward({x.on(stream), gamma.on(stream), beta.on(stream), y.on(stream),
                      mean.on(stream), rstd.on(stream), 0},
                     stream);
  expect_close(y, test_matrix(1, 2, {-10, 101}).in_double(), 1e-6);
  EXPECT_EQ(mean[0], 3);
  EXPECT_EQ(rstd[0], 0.5f);
}

TEST_P(LayerNormTest, NamesAMatrixOfAnotherType) {
  const OutputMatrix half(nullptr, DataType::kFloat16, 0, 0);
  const std::string why = tests_run_on_devices()
                              ? " is of fp16 (the op takes fp32 and bf16)"
                              : " is of fp16 (on the CPU the op takes fp32 alone)";
  LayerNormForward forward;
  forward.y = half;
  LayerNormBackward backward;
  backward.d_y = half;
  expect_error([&] { layer_norm_forward(forward, stream); }, "layer_norm: y" + why);
  expect_error([&] { layer_norm_backward(backward, stream); }, "layer_norm: d_y" + why);
}

TEST_P(LayerNormTest, EqualValuesBecomeBeta) {
  TestMatrix x(2, 19, 1e4f), y(2, 19);
  const TestArray<float> gamma(19, 3), beta(19, 7), mean(2), rstd(2);
  layer_norm_forward({x.on(stream), gamma.on(stream), beta.on(stream), y.on(stream),
                      mean.on(stream), rstd.on(stream)},
                     stream);
  expect_close(y, TestMatrix(2, 19, 7).in_double(), 0);
}

struct RowShape {
  std::int64_t n, dim;
};
class LayerNormShapes : public KernelTestOver<RowShape> {};
INSTANTIATE_TEST_SUITE_P(
    Shapes, LayerNormShapes,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Values(RowShape{0, 4}, RowShape{1, 1}, RowShape{5, 17},
                                     RowShape{3, 64}, RowShape{2, 131}, RowShape{3, 1030},
                                     RowShape{tests_run_on_devices() ? 600 : 1100, 3})));

struct LayerNorm {
  explicit LayerNorm(const RowShape& s)
      : x(TestMatrix::random(s.n, s.dim, 1)),
        gamma(TestMatrix::random(1, s.dim, 2)),
        beta(TestMatrix::random(1, s.dim, 3)),
        y(s.n, s.dim),
        d_y(TestMatrix::random(s.n, s.dim, 4)),
        d_x(s.n, s.dim),
        d_gamma(1, s.dim),
        d_beta(1, s.dim),
        mean(s.n),
        rstd(s.n) {}

  void run(TestStreams& on, int num_threads,
           LayerNormBackward::Write write = LayerNormBackward::Write::kOverwrite) {
    const Stream& stream = on.threads(num_threads);
    layer_norm_forward(forward(stream), stream);
    LayerNormBackward args = backward(stream);
    args.write = write;
    layer_norm_backward(args, stream);
  }

  LayerNormForward forward(const Stream& stream) {
    return {.x = x.on(stream),
            .gamma = gamma.row_on(stream),
            .beta = beta.row_on(stream),
            .y = y.on(stream),
            .mean = mean.on(stream),
            .rstd = rstd.on(stream),
            .eps = kEps};
  }
  LayerNormBackward backward(const Stream& stream) {
    return {.x = x.on(stream),
            .d_y = d_y.on(stream),
            .gamma = gamma.row_on(stream),
            .mean = mean.on(stream),
            .rstd = rstd.on(stream),
            .d_x = d_x.on(stream),
            .d_gamma = d_gamma.row_on(stream),
            .d_beta = d_beta.row_on(stream)};
  }

  static constexpr float kEps = 1e-3f;
  TestMatrix x, gamma, beta, y, d_y, d_x, d_gamma, d_beta;
  TestArray<float> mean, rstd;
};

TEST_P(LayerNormShapes, AgreesWithTheReference) {
  LayerNorm norm(param());
  norm.run(*this, 1);
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

// What a product is to read and made is bfloat16: the same, rounded.
TEST_P(LayerNormShapes, OfBfloat16) {
  LayerNorm norm(param());
  norm.d_y = rounded_to_halves(norm.d_y);
  norm.run(*this, 1);
  LayerNorm halves(param());
  const TestHalves y(halves.y), d_y(halves.d_y);
  const auto run = [&] {
    LayerNormForward forward = halves.forward(stream);
    forward.y = y.on(stream);
    layer_norm_forward(forward, stream);
    LayerNormBackward backward = halves.backward(stream);
    backward.d_y = d_y.on(stream);
    layer_norm_backward(backward, stream);
  };
  if (!tests_run_on_devices()) {
    EXPECT_THROW(run(), Error);
    return;
  }
  run();
  EXPECT_EQ(y.in_float().raw(), rounded_to_halves(norm.y).raw());
  EXPECT_EQ(halves.mean.host(), norm.mean.host());
  EXPECT_EQ(halves.d_x.raw(), norm.d_x.raw());
  EXPECT_EQ(halves.d_gamma.raw(), norm.d_gamma.raw());
  EXPECT_EQ(halves.d_beta.raw(), norm.d_beta.raw());
}

TEST_P(LayerNormShapes, ThreadsChangeNoBits) {
  LayerNorm one(param());
  one.run(*this, 1);
  for (int num_threads = 2; num_threads <= most_threads(); ++num_threads) {
    LayerNorm several(param());
    several.run(*this, num_threads);
    EXPECT_EQ(several.y.raw(), one.y.raw());
    EXPECT_EQ(several.d_x.raw(), one.d_x.raw());
    EXPECT_EQ(several.d_gamma.raw(), one.d_gamma.raw());
    EXPECT_EQ(several.d_beta.raw(), one.d_beta.raw());
  }
}

TEST_P(LayerNormTest, AccumulateAddsToInputGradient) {
  LayerNorm overwrite({4, 21}), accumulate({4, 21});
  overwrite.run(*this, 1);
  accumulate.d_x = TestMatrix(4, 21, 2);
  accumulate.run(*this, 1, LayerNormBackward::Write::kAccumulate);
  reference::Matrix expected = overwrite.d_x.in_double();
  for (double& value : expected.values) value += 2;
  expect_close(accumulate.d_x, expected, 1e-6);
}

TEST_P(LayerNormTest, ParameterGradientsAreAddedTo) {
  LayerNorm once({4, 21}), twice({4, 21});
  once.run(*this, 1);
  twice.run(*this, 1);
  twice.run(*this, 1);
  reference::Matrix expected = once.d_gamma.in_double();
  for (double& value : expected.values) value *= 2;
  expect_close(twice.d_gamma, expected, 1e-6);
}

TEST_P(LayerNormTest, ASumThatIsNotXIsAnError) {
  LayerNorm norm({4, 21});
  const TestMatrix other = norm.x;
  const DeviceMatrix<float> x = norm.x.on(stream);
  for (const DeviceMatrix<float>& sum : {x.columns(0, 20), x.middle_rows(0, 3), other.on(stream)}) {
    const LayerNormForward forward{.x = x,
                                   .gamma = norm.gamma.row_on(stream),
                                   .beta = norm.beta.row_on(stream),
                                   .y = norm.y.on(stream),
                                   .mean = norm.mean.on(stream),
                                   .rstd = norm.rstd.on(stream),
                                   .sum = {{}, sum, {}, sum}};
    expect_error([&] { layer_norm_forward(forward, stream); }, "layer_norm: the sum must be x");
  }
}

TEST_P(LayerNormTest, TheGradientOfABiasIsThatOfABranch) {
  LayerNorm norm({4, 21});
  const TestMatrix d_bias(1, 21), d_branch(4, 21);
  LayerNormBackward backward{norm.x.on(stream),           norm.d_y.on(stream),
                             norm.gamma.row_on(stream),   norm.mean.on(stream),
                             norm.rstd.on(stream),        norm.d_x.on(stream),
                             norm.d_gamma.row_on(stream), norm.d_beta.row_on(stream)};
  const auto expect_refused = [&] {
    expect_error([&] { layer_norm_backward(backward, stream); },
                 "layer_norm: d_bias must have an entry per column of d_branch");
  };
  backward.d_bias = d_bias.row_on(stream);
  expect_refused();
  backward.d_branch = d_branch.on(stream);
  backward.d_bias = backward.d_bias.first(20);
  expect_refused();
}

// On a GPU more than 16 blocks have a part of each sum.
TEST_P(LayerNormTest, SumsGradientsOfParametersOverManyRows) {
  LayerNorm norm({600, 131});
  const TestMatrix d_branch(600, 131), d_bias(1, 131);
  norm.run(*this, 1);
  const reference::Matrix normalized =
      reference::layer_norm(norm.x.in_double(), TestMatrix(1, 131, 1).in_double(),
                            TestMatrix(1, 131).in_double(), LayerNorm::kEps);
  norm.d_gamma = norm.d_beta = TestMatrix(1, 131);
  LayerNormBackward backward = norm.backward(stream);
  backward.d_branch = d_branch.on(stream);
  backward.d_bias = d_bias.row_on(stream);
  layer_norm_backward(backward, stream);
  reference::Matrix d_gamma(1, 131), d_beta(1, 131), sums(1, 131);
  for (std::int64_t r = 0; r < 600; ++r) {
    for (std::int64_t c = 0; c < 131; ++c) {
      d_gamma(0, c) += norm.d_y(r, c) * normalized(r, c);
      d_beta(0, c) += norm.d_y(r, c);
      sums(0, c) += norm.d_x(r, c);
    }
  }
  expect_close(norm.d_gamma, d_gamma, 1e-5);
  expect_close(norm.d_beta, d_beta, 1e-5);
  expect_close(d_bias, sums, 1e-5);
}

// The sum ahead of a norm and the gradient of its branch behind it have the bits of dropout's ops.
TEST_P(LayerNormShapes, WithDropoutAheadOfIt) {
  const std::int64_t n = param().n, dim = param().dim;
  TestArray<std::int64_t> ids(n);
  for (std::int64_t r = 0; r < n; ++r) ids[r] = 7 * r;
  for (const DataType type : {DataType::kFloat32, DataType::kBFloat16}) {
    if (type == DataType::kBFloat16 && !tests_run_on_devices()) continue;
    const bool is_half = type == DataType::kBFloat16;
    const DropoutKey key{0.3f, 1, 2, 3, ids.on(stream)};
    const TestMatrix branch = rounded_to_halves(TestMatrix::random(n, dim, 5)),
                     residual = TestMatrix::random(n, dim, 6);
    const TestHalves branch16(branch), d_branch16(branch);
    const auto rows = [&](const TestMatrix& floats, const TestHalves& halves) {
      return is_half ? OutputMatrix(halves.on(stream)) : OutputMatrix(floats.on(stream));
    };
    LayerNorm apart(param()), fused(param());
    const auto forward = [&](LayerNorm& norm, const LayerNormSum& sum) {
      LayerNormForward args = norm.forward(stream);
      args.sum = sum;
      layer_norm_forward(args, stream);
    };
    TestMatrix d_bias(1, dim, 1);  // added to
    const auto backward = [&](LayerNorm& norm, const OutputMatrix& d_branch) {
      LayerNormBackward args = norm.backward(stream);
      args.write = LayerNormBackward::Write::kAccumulate;
      args.key = key;
      args.d_branch = d_branch;
      if (d_branch.cols > 0) args.d_bias = d_bias.row_on(stream);
      layer_norm_backward(args, stream);
    };
    dropout_forward(key, rows(branch, branch16), residual.on(stream), apart.x.on(stream), stream);
    forward(apart, {});
    backward(apart, {});
    TestMatrix expected(n, dim), d_branch(n, dim);
    dropout_backward(key, apart.d_x.on(stream), expected.on(stream), stream);

    forward(fused, {key, rows(branch, branch16), residual.on(stream), fused.x.on(stream)});
    backward(fused, rows(d_branch, d_branch16));
    EXPECT_EQ(fused.x.raw(), apart.x.raw());
    EXPECT_EQ(fused.y.raw(), apart.y.raw());
    EXPECT_EQ(fused.mean.host(), apart.mean.host());
    EXPECT_EQ(fused.rstd.host(), apart.rstd.host());
    EXPECT_EQ(fused.d_x.raw(), apart.d_x.raw());
    EXPECT_EQ(fused.d_gamma.raw(), apart.d_gamma.raw());
    EXPECT_EQ(fused.d_beta.raw(), apart.d_beta.raw());
    reference::Matrix sums(1, dim);
    for (double& sum : sums.values) sum = 1;
    for (std::int64_t r = 0; r < n; ++r) {
      for (std::int64_t c = 0; c < dim; ++c) sums(0, c) += expected(r, c);
    }
    expect_close(d_bias, sums, 1e-5);
    if (is_half) {
      EXPECT_EQ(d_branch16.in_float().raw(), rounded_to_halves(expected).raw());
    } else {
      EXPECT_EQ(d_branch.raw(), expected.raw());
    }
    // In place: a branch that becomes the sum, and a gradient that becomes its branch's.
    fused.x = branch;
    forward(fused, {key, fused.x.on(stream), {}, fused.x.on(stream)});
    dropout_forward(key, branch.on(stream), {}, apart.x.on(stream), stream);
    EXPECT_EQ(fused.x.raw(), apart.x.raw());
    forward(apart, {});
    backward(apart, {});
    backward(fused, fused.d_x.on(stream));
    dropout_backward(key, apart.d_x.on(stream), expected.on(stream), stream);
    EXPECT_EQ(fused.d_x.raw(), expected.raw());
  }
}

// Tokens ahead of a norm, too, have the bits of their op.
TEST_P(LayerNormShapes, OfTokens) {
  constexpr std::int64_t kLength = 4;
  const std::int64_t n = param().n, dim = param().dim;
  TestArray<std::int64_t> ids(n), positions(n);
  for (std::int64_t r = 0; r < n; ++r) ids[r] = 7 * r, positions[r] = r % kLength;
  const TestMatrix item = TestMatrix::random(n, dim, 5), country = TestMatrix::random(n, dim, 6),
                   position = TestMatrix::random(kLength, dim, 7);
  const std::vector<DeviceMatrix<const float>> features{item.on(stream), country.on(stream)};
  const DropoutKey key{0.3f, 1, 2, 3, ids.on(stream)};
  LayerNorm apart(param()), fused(param());
  const auto tokens = [&](LayerNorm& norm) {
    return TokenEmbeddingForward{features, position.on(stream), positions.on(stream), 1.5f,
                                 norm.x.on(stream)};
  };
  const auto forward = [&](LayerNorm& norm, const LayerNormSum& sum) {
    layer_norm_forward(
        {norm.x.on(stream), norm.gamma.row_on(stream), norm.beta.row_on(stream), norm.y.on(stream),
         norm.mean.on(stream), norm.rstd.on(stream), LayerNorm::kEps, sum},
        stream);
  };
  token_embedding_forward(tokens(apart), stream);
  dropout_forward(key, apart.x.on(stream), {}, apart.x.on(stream), stream);
  forward(apart, {});
  forward(fused, {key, fused.x.on(stream), {}, fused.x.on(stream), tokens(fused)});
  EXPECT_EQ(fused.x.raw(), apart.x.raw());
  EXPECT_EQ(fused.y.raw(), apart.y.raw());
  if (n == 0) return;
  expect_error(
      [&] { forward(fused, {key, fused.x.on(stream), {}, fused.x.on(stream), tokens(apart)}); },
      "layer_norm: the branch and its tokens must be x");
}

}  // namespace
}  // namespace serrate
