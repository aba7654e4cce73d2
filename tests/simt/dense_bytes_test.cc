// What the dense and jagged ops move, in sectors of 32 bytes as the simulated device counts them,
// against the least that each could: what it reads and writes, once. docs/performance_gpu.md has
// the table.
#include <gtest/gtest.h>

#include <iostream>
#include <string>

#include "serrate/buffer.h"
#include "serrate/kernels/activation.h"
#include "serrate/kernels/adamw.h"
#include "serrate/kernels/dropout.h"
#include "serrate/kernels/feed_forward.h"
#include "serrate/kernels/jagged_bmm.h"
#include "serrate/kernels/jagged_concat.h"
#include "serrate/kernels/jagged_elementwise.h"
#include "serrate/kernels/jagged_padded.h"
#include "serrate/kernels/jagged_pairs.h"
#include "serrate/kernels/jagged_softmax.h"
#include "serrate/kernels/l2_normalize.h"
#include "serrate/kernels/layer_norm.h"
#include "serrate/kernels/linear.h"
#include "serrate/kernels/round_to_bfloat16.h"
#include "serrate/kernels/sampled_softmax.h"
#include "serrate/kernels/token_embedding.h"
#include "tests/support/simt/counters.h"

namespace serrate {
namespace {

constexpr std::int64_t kTokens = 8192, kDim = 64, kLength = 50;

class DenseBytes : public testing::Test {
 protected:
  Buffer<float> values(std::int64_t rows, std::int64_t cols = kDim) const {
    return Buffer<float>::zeros(rows * cols, stream_);
  }

  /// The op moves at most 1.15 times what `rows` rows of kDim floats are, in so many launches of
  /// our kernels (those of cuBLAS are not counted).
  template <typename F>
  void expect_near_floor(const std::string& name, double rows, std::uint64_t launches, F op,
                         double most = 1.15) {
    stream_.synchronize();
    simt::reset_counters();
    op();
    stream_.synchronize();
    std::uint64_t sectors = 0, launched = 0;
    for (const simt::KernelCounters& c : simt::kernel_counters()) {
      sectors += c.global_read_sectors + c.global_written_sectors;
      launched += c.launches;
      EXPECT_EQ(c.shared_bank_conflicts, 0) << name;
    }
    const double ratio = static_cast<double>(sectors) * 32 / (rows * kDim * sizeof(float));
    std::cout << name << ": " << launched << " launches, " << ratio << " x the floor\n";
    EXPECT_EQ(launched, launches) << name;
    EXPECT_GE(ratio, 1) << name << ": the floor is wrong";
    EXPECT_LE(ratio, most) << name;
  }

  /// t % period for each token t.
  Buffer<std::int64_t> numbers(std::int64_t period) const {
    std::vector<std::int64_t> of_tokens(kTokens);
    for (std::int64_t t = 0; t < kTokens; ++t) of_tokens[t] = t % period;
    return {of_tokens, stream_};
  }

  const Stream stream_{Device::cuda(0)};
  const Buffer<std::int64_t> token_ids_ = numbers(kTokens), positions_ = numbers(kLength);
  Buffer<float> x_ = values(kTokens), y_ = values(kTokens), d_x_ = values(kTokens);
  const DeviceMatrix<const float> x = std::as_const(x_).matrix(kTokens, kDim);
  const DeviceMatrix<float> y = y_.matrix(kTokens, kDim), d_x = d_x_.matrix(kTokens, kDim);
  // Rows that count half.
  Buffer<BFloat16> x16_ = Buffer<BFloat16>::zeros(kTokens * kDim, stream_),
                   y16_ = Buffer<BFloat16>::zeros(kTokens * kDim, stream_);
  const DeviceMatrix<BFloat16> x16 = x16_.matrix(kTokens, kDim), y16 = y16_.matrix(kTokens, kDim);
};

TEST_F(DenseBytes, Elementwise) {
  expect_near_floor("activation_forward", 2 * kTokens, 1,
                    [&] { activation_forward(Activation::kGelu, x, y, stream_); });
  expect_near_floor("activation_backward", 3 * kTokens, 1,
                    [&] { activation_backward(Activation::kGelu, x, y, d_x, stream_); });
  expect_near_floor("activation_forward, bfloat16", kTokens, 1,
                    [&] { activation_forward(Activation::kGelu, x16, y16, stream_); });
  expect_near_floor("activation_backward, bfloat16", 1.5 * kTokens, 1,
                    [&] { activation_backward(Activation::kGelu, x16, y16, y16, stream_); });
  const DropoutKey key{0.1f, 1, 2, 3, token_ids_.span()};
  expect_near_floor("dropout_forward", 3 * kTokens, 1,
                    [&] { dropout_forward(key, x, y, d_x, stream_); });
  expect_near_floor("dropout_backward", 2 * kTokens, 1,
                    [&] { dropout_backward(key, x, d_x, stream_); });
  expect_near_floor("dropout_forward, of bfloat16", 2.5 * kTokens, 1,
                    [&] { dropout_forward(key, x16, y, d_x, stream_); });
  expect_near_floor("dropout_backward, to bfloat16", 1.5 * kTokens, 1,
                    [&] { dropout_backward(key, x, y16, stream_); });
  Buffer<float> first = values(kTokens), second = values(kTokens);
  expect_near_floor("adamw_update", 8 * kTokens, 1, [&] {
    adamw_update({y_.span(), first.span(), second.span(), x_.span(), d_x_.span(), {}, 1}, stream_);
  });
  expect_near_floor("adamw_update, with copies in bfloat16", 8.5 * kTokens, 1, [&] {
    adamw_update(
        {y_.span(), first.span(), second.span(), x_.span(), d_x_.span(), {}, 1, y16_.span()},
        stream_);
  });
}

TEST_F(DenseBytes, Norms) {
  Buffer<float> gamma = values(1), beta = values(1), d_gamma = values(1), d_beta = values(1);
  Buffer<float> mean = values(kTokens, 1), rstd = values(kTokens, 1);
  const auto forward = [&](DeviceMatrix<const float> input, const OutputMatrix& output,
                           const LayerNormSum& sum) {
    return [&, input, output, sum] {
      layer_norm_forward(
          {input, gamma.span(), beta.span(), output, mean.span(), rstd.span(), 1e-5f, sum},
          stream_);
    };
  };
  expect_near_floor("layer_norm_forward", 2 * kTokens, 1, forward(x, y, {}));
  constexpr double kStatistics = 2.0 / kDim;
  expect_near_floor("layer_norm_forward, to bfloat16", (1.5 + kStatistics) * kTokens, 1,
                    forward(x, y16, {}));
  LayerNormBackward backward{x,           y,   gamma.span(),   mean.span(),
                             rstd.span(), d_x, d_gamma.span(), d_beta.span()};
  expect_near_floor("layer_norm_backward", 3 * kTokens, 1,
                    [&] { layer_norm_backward(backward, stream_); });
  backward.write = LayerNormBackward::Write::kAccumulate;
  expect_near_floor("layer_norm_backward, added", 4 * kTokens, 1,
                    [&] { layer_norm_backward(backward, stream_); });
  backward.d_y = y16;
  expect_near_floor("layer_norm_backward, of bfloat16, added", 3.5 * kTokens, 1,
                    [&] { layer_norm_backward(backward, stream_); });
  const DropoutKey key{0.1f, 1, 2, 3, token_ids_.span()};
  Buffer<float> sum = values(kTokens);
  const DeviceMatrix<float> s = sum.matrix(kTokens, kDim);
  expect_near_floor("layer_norm_forward of a sum", 4 * kTokens, 1, forward(s, y, {key, d_x, x, s}));
  constexpr double kTokenId = 2.0 / kDim;
  expect_near_floor("layer_norm_forward of a sum, bfloat16", (3 + kStatistics + kTokenId) * kTokens,
                    1, forward(s, y16, {key, x16, x, s}));
  Buffer<float> position = values(kLength), d_bias = values(1);
  const DeviceMatrix<const float> features[]{x};
  const TokenEmbeddingForward tokens{features, std::as_const(position).matrix(kLength, kDim),
                                     positions_.span(), 8, s};
  // Of each token its feature, a row of the position table, and where that is.
  expect_near_floor("layer_norm_forward of tokens, bfloat16",
                    (3.5 + kStatistics + 2 * kTokenId) * kTokens, 1,
                    forward(s, y16, {key, s, {}, s, tokens}));
  backward.key = key;
  backward.d_branch = y16;
  backward.d_bias = d_bias.span();
  expect_near_floor("layer_norm_backward, of bfloat16, added, with its branch and a bias",
                    (4 + kStatistics + kTokenId) * kTokens, 1,
                    [&] { layer_norm_backward(backward, stream_); });
  expect_near_floor("l2_normalize_forward", 2 * kTokens, 1,
                    [&] { l2_normalize_forward(x, y, mean.span(), stream_); });
  expect_near_floor("l2_normalize_backward", 3 * kTokens, 1,
                    [&] { l2_normalize_backward(x, mean.span(), y, d_x, stream_); });
}

TEST_F(DenseBytes, LinearBackwardOutsideTheProducts) {
  Buffer<float> weight = values(kDim), d_weight = values(kDim), d_bias = values(1);
  expect_near_floor("linear_backward, d_bias", kTokens, 1, [&] {
    linear_backward(
        {x, weight.matrix(kDim, kDim), y, d_x, d_weight.matrix(kDim, kDim), d_bias.span()},
        stream_);
  });
  const DeviceMatrix<BFloat16> weight16 = x16_.matrix(kDim, kDim);
  expect_near_floor("linear_backward in bf16, d_bias", 0.5 * kTokens, 1, [&] {
    linear_backward(
        {x16, weight16, y16, {}, d_weight.matrix(kDim, kDim), d_bias.span(), Precision::kBf16},
        stream_);
  });
  expect_near_floor("round_to_bfloat16", 1.5 * kTokens, 1,
                    [&] { round_to_bfloat16(x_.span(), y16_.span(), stream_); });
}

// All sides are kDim, and d_down_bias is left to a norm. Where the products apply the activation,
// the sum for the other bias is left; else there are the activation, and its gradient with that
// sum.
TEST_F(DenseBytes, FeedForwardOutsideTheProducts) {
  Buffer<float> weight = values(kDim), bias = values(1), d_up = values(kDim), d_down = values(kDim),
                d_bias = values(1);
  Buffer<float> activated = values(kTokens), d_activated = values(kTokens);
  const DeviceMatrix<const float> square = std::as_const(weight).matrix(kDim, kDim);
  for (const auto f : {Activation::kRelu, Activation::kGelu}) {
    const bool is_relu = f == Activation::kRelu;
    Buffer<std::byte> kept(
        feed_forward_kept_bytes(f, kTokens, kDim, DataType::kFloat32, stream_.device()), stream_);
    EXPECT_EQ(kept.size(), is_relu ? kTokens * 16 : kTokens * kDim * 4);
    const FeedForward forward{.x = x,
                              .up = square,
                              .up_bias = bias.span(),
                              .down = square,
                              .down_bias = bias.span(),
                              .activation = f,
                              .kept = kept.span(),
                              .activated = activated.matrix(kTokens, kDim),
                              .y = y};
    const FeedForwardBackward backward{.forward = forward,
                                       .d_y = y,
                                       .d_activated = d_activated.matrix(kTokens, kDim),
                                       .d_x = d_x,
                                       .d_up = d_up.matrix(kDim, kDim),
                                       .d_down = d_down.matrix(kDim, kDim),
                                       .d_up_bias = d_bias.span()};
    if (is_relu) {
      simt::reset_counters();
      feed_forward(forward, stream_);
      stream_.synchronize();
      EXPECT_TRUE(simt::kernel_counters().empty());
    } else {
      expect_near_floor("feed_forward", 2 * kTokens, 1, [&] { feed_forward(forward, stream_); });
    }
    expect_near_floor("feed_forward_backward, " + to_string(f), (is_relu ? 1 : 3) * kTokens, 1,
                      [&] { feed_forward_backward(backward, stream_); });
  }
}

TEST_F(DenseBytes, TokenEmbedding) {
  Buffer<float> position = values(kLength);
  const DeviceMatrix<const float> features[]{x};
  // A row of the position table for each token, too.
  expect_near_floor("token_embedding_forward", 3 * kTokens, 1, [&] {
    token_embedding_forward(
        {features, std::as_const(position).matrix(kLength, kDim), positions_.span(), 8, y},
        stream_);
  });
  const DeviceMatrix<float> d_features[]{d_x};
  expect_near_floor("token_embedding_backward", 2 * kTokens, 1, [&] {
    token_embedding_backward({x, positions_.span(), 8, d_features, position.matrix(kLength, kDim)},
                             stream_);
  });
}

// What the kernels on tensor cores read and write: here a block has a tile of one side and all of
// the other. And what those do that round the rows.
TEST_F(DenseBytes, SampledSoftmaxOnTensorCores) {
  constexpr std::int64_t kSide = 64, kNegatives = 2 * kSide, kHidden = 3 * kSide;
  const Buffer<std::int64_t> ids = Buffer<std::int64_t>::zeros(kHidden, stream_);
  Buffer<float> negatives = values(kNegatives), d_negatives = values(kNegatives);
  const auto hidden = x_.matrix(kHidden, kDim), d_hidden = y_.matrix(kHidden, kDim);
  Buffer<double> loss(1, stream_);
  for (const auto& [precision, value] : {std::pair{Precision::kBf16, 2}, {Precision::kTf32, 4}}) {
    simt::reset_counters();
    sampled_softmax({.hidden = hidden,
                     .targets = hidden,
                     .negatives = negatives.matrix(kNegatives, kDim),
                     .target_ids = ids.span(),
                     .negative_ids = ids.span().first(kNegatives),
                     .d_hidden = d_hidden,
                     .d_targets = d_x_.matrix(kHidden, kDim),
                     .d_negatives = d_negatives.matrix(kNegatives, kDim),
                     .precision = precision},
                    loss.span(), stream_);
    stream_.synchronize();
    const double tile = kSide * kDim, row = sizeof(float) * kSide;
    const auto expect_floor = [&](const std::string& name, double floor) {
      double sectors = 0;
      for (const simt::KernelCounters& c : simt::kernel_counters()) {
        if (c.kernel.find(name) == std::string::npos) continue;
        sectors += static_cast<double>(c.global_read_sectors + c.global_written_sectors);
        EXPECT_EQ(c.shared_bank_conflicts, 0) << c.kernel;
      }
      const double ratio = sectors * 32 / floor;
      std::cout << name << " in " << to_string(precision) << ": " << ratio << " x the floor\n";
      EXPECT_GE(ratio, 1) << name << ": the floor is wrong";
      EXPECT_LE(ratio, 1.01) << name;
    };
    expect_floor("RoundRows", (kHidden + kNegatives) * kDim * (4 + value));
    // 3 blocks with 1 + 2 tiles: rows and ids; sums of a tile of floats, and two floats a token.
    expect_floor("sum_over_negatives",
                 9 * (tile * value + 2 * row) + 3 * (tile * sizeof(float) + 2 * row));
    // 2 blocks with 1 + 3: two floats a token beside its id. Sums are added to.
    expect_floor("sum_over_tokens",
                 8 * (tile * value + 2 * row) + 6 * 2 * row + 2 * 2 * tile * sizeof(float));
  }
}

// Sequences of several lengths, and a number for each pair of their rows, which begin anywhere in a
// sector, so that both ends of a row, and of what a warp has of it, are counted. Floors are in
// floats; what finds a block's rows in the offsets comes on top.
class JaggedBytes : public DenseBytes {
 protected:
  static constexpr std::int64_t kSamples = 36, kLongest = 64;
  struct Counted {  // what an op moves, as a multiple of its floor
    double forward, backward;
  };

  JaggedBytes() {
    constexpr std::int64_t kLengths[] = {50, 3, 64, 0, 33, 17};
    std::vector<std::int64_t> host = {0};
    for (std::int64_t b = 0; b < kSamples; ++b) {
      host.push_back(host.back() + kLengths[b % 6]);
      pairs_ += kLengths[b % 6] * kLengths[b % 6];
    }
    rows_ = host.back();
    offsets_ = Buffer<std::int64_t>(host, stream_);
    pair_offsets(offsets_.span(), offsets_.span(), squares_.span(), stream_);
  }
  MatrixBatch<float> jagged(Buffer<float>& of, std::int64_t cols = kDim) {
    return MatrixBatch<float>::jagged(of.matrix(rows_, cols), offsets_.span());
  }
  MatrixBatch<float> pairs(Buffer<float>& of) {
    return MatrixBatch<float>::pairs(of.span(), squares_.span(), offsets_.span(), offsets_.span());
  }
  MatrixBatch<float> dense(Buffer<float>& of, std::int64_t cols = kDim) {
    return MatrixBatch<float>::dense(of.matrix(kSamples * kLongest, cols), kSamples);
  }
  /// The op moves at most 6 % more than the `counted` multiple of its floor.
  template <typename F>
  void expect_near(const std::string& name, std::int64_t floats, std::uint64_t launches,
                   double counted, F op) {
    expect_near_floor(name, static_cast<double>(floats) / kDim, launches, op, 1.06 * counted);
  }

  std::int64_t rows_ = 0, pairs_ = 0;
  Buffer<std::int64_t> offsets_, squares_{kSamples + 1, stream_};
};

TEST_F(JaggedBytes, ProductsOfOneTile) {
  const std::int64_t jag = rows_ * kDim, squares = kSamples * kDim * kDim;
  Buffer<float> z = values(rows_);
  Buffer<float> w = values(kSamples * kDim), d_w = values(kSamples * kDim);
  Buffer<float> p = values(pairs_, 1), d_p = values(pairs_, 1);
  const auto of = [&](const std::string& name, std::int64_t floats, MatrixBatch<float> a,
                      MatrixBatch<float> b, MatrixBatch<float> c, MatrixBatch<float> d_a,
                      MatrixBatch<float> d_b, Transposed transposed, Counted counted) {
    expect_near(name, floats, 1, counted.forward,
                [&] { jagged_bmm_forward({a, b, c, transposed}, stream_); });
    expect_near(name + ", backward", 2 * floats, 2, counted.backward,
                [&] { jagged_bmm_backward({a, b, c, d_a, d_b, transposed}, stream_); });
  };
  of("jagged_dense_bmm", 2 * jag + squares, jagged(x_), dense(w), jagged(z), jagged(d_x_),
     dense(d_w), Transposed::kNone, {1.11, 1.08});
  of("jagged_jagged_bmm", 2 * jag + squares, jagged(x_), jagged(y_), dense(w), jagged(d_x_),
     jagged(z), Transposed::kLeft, {1.05, 1.11});
  of("jagged_jagged_bmm_jagged_out", 2 * jag + pairs_, jagged(x_), jagged(y_), pairs(p),
     jagged(d_x_), jagged(z), Transposed::kRight, {1.90, 1.59});
  of("array_jagged_bmm_jagged_out", 2 * jag + pairs_, pairs(p), jagged(y_), jagged(z), pairs(d_p),
     jagged(d_x_), Transposed::kNone, {1.69, 1.69});
}

TEST_F(JaggedBytes, Softmax) {
  Buffer<float> p = values(pairs_, 1), q = values(pairs_, 1), d_p = values(pairs_, 1);
  const auto of = [&](const std::string& name, MatrixBatch<float> a, MatrixBatch<float> b,
                      MatrixBatch<float> c, std::int64_t floats, SoftmaxAxis axis,
                      Counted counted) {
    expect_near(name, 2 * floats, 1, counted.forward,
                [&] { jagged_softmax_forward({a, b, axis}, stream_); });
    expect_near(name + ", backward", 3 * floats, 1, counted.backward,
                [&] { jagged_softmax_backward({a, b, c, axis}, stream_); });
  };
  of("jagged_softmax", jagged(x_), jagged(y_), jagged(d_x_), rows_ * kDim, SoftmaxAxis::kRows,
     {1.14, 1.12});
  of("jagged2_softmax over columns", pairs(p), pairs(q), pairs(d_p), pairs_, SoftmaxAxis::kColumns,
     {1.97, 1.92});
  of("jagged2_softmax over rows", pairs(p), pairs(q), pairs(d_p), pairs_, SoftmaxAxis::kRows,
     {2.14, 1.94});
}

TEST_F(JaggedBytes, ElementwiseAndCopies) {
  const std::int64_t jag = rows_ * kDim, padded = kSamples * kLongest * kDim;
  Buffer<float> z = values(rows_);
  Buffer<float> dense_y = values(kSamples * kLongest), d_y = values(kSamples * kLongest);
  for (const auto& [op, name] : {std::pair{Elementwise::kAdd, "jagged_dense_elementwise_add"},
                                 {Elementwise::kMultiply, "jagged_dense_elementwise_mul"}}) {
    expect_near(name, 3 * jag, 1, 1.12, [&] {
      jagged_elementwise_forward({op, jagged(x_), dense(dense_y), jagged(z)}, stream_);
    });
    const bool is_product = op == Elementwise::kMultiply;
    expect_near(std::string(name) + ", backward", (is_product ? 5 : 1) * jag + padded,
                is_product ? 2 : 1, is_product ? 1.12 : 1.13, [&] {
                  jagged_elementwise_backward(
                      {op, jagged(x_), dense(dense_y), jagged(z),
                       is_product ? jagged(d_x_) : MatrixBatch<float>(), dense(d_y)},
                      stream_);
                });
  }
  expect_near("jagged_to_padded", jag + padded, 1, 1.03,
              [&] { jagged_to_padded(jagged(x_), 0, dense(dense_y), stream_); });
  expect_near("padded_to_jagged", 2 * jag, 1, 1.14,
              [&] { padded_to_jagged(dense(dense_y), jagged(x_), stream_); });
  Buffer<float> row = values(kSamples), joined = values(rows_ + kSamples);
  Buffer<std::int64_t> joined_offsets(kSamples + 1, stream_);
  const auto first = MatrixBatch<float>::dense(row.matrix(kSamples, kDim), kSamples);
  jagged_concat_offsets(first, jagged(x_), joined_offsets.span(), stream_);
  const auto both =
      MatrixBatch<float>::jagged(joined.matrix(rows_ + kSamples, kDim), joined_offsets.span());
  expect_near("jagged_concat", 2 * (rows_ + kSamples) * kDim, 1, 1.17,
              [&] { jagged_concat(first, jagged(x_), both, stream_); });
  expect_near("jagged_split", 2 * (rows_ + kSamples) * kDim, 1, 1.17,
              [&] { jagged_split(both, first, jagged(x_), stream_); });
}

}  // namespace
}  // namespace serrate
