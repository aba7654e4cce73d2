#include "serrate/kernels/token_embedding.h"

#include "serrate/error.h"
#include "tests/kernels/test_matrix.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class TokenEmbeddingTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, TokenEmbeddingTest, testing::ValuesIn(test_devices()),
                         device_name);

TEST_P(TokenEmbeddingTest, AgreesWithTokensByHand) {
  TestMatrix item = test_matrix(3, 1, {1, 2, 3}), country = test_matrix(3, 1, {10, 20, 30});
  TestMatrix position = test_matrix(2, 1, {100, 200}), x(3, 1);
  const std::vector<DeviceMatrix<const float>> features{item.on(stream), country.on(stream)};
  const TestArray<std::int64_t> positions{0, 1, 0};
  token_embedding_forward({features, position.on(stream), positions.on(stream), 2, x.on(stream)},
                          stream);
  expect_close(x, test_matrix(3, 1, {122, 244, 166}).in_double(), 0);

  TestMatrix d_position = test_matrix(2, 1, {0.5f, 0});
  const std::vector<DeviceMatrix<float>> d_features{item.on(stream), country.on(stream)};
  token_embedding_backward(
      {x.on(stream), positions.on(stream), 2, d_features, d_position.on(stream)}, stream);
  expect_close(item, test_matrix(3, 1, {244, 488, 332}).in_double(), 0);
  expect_close(country, item.in_double(), 0);
  expect_close(d_position, test_matrix(2, 1, {288.5f, 244}).in_double(), 0);
}

class TokenEmbeddingColumns : public KernelTestOver<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Columns, TokenEmbeddingColumns,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(0, 1, 15, 16, 50, 64)));

TEST_P(TokenEmbeddingColumns, AgreesWithTheDefinitionOnAnyThreads) {
  const std::int64_t n = 1100, max_length = 40, dim = param();  // more tokens than a block takes
  TestMatrix feature = TestMatrix::random(n, dim, 1);
  TestMatrix position = TestMatrix::random(max_length, dim, 2);
  TestArray<std::int64_t> positions(n);
  for (std::int64_t t = 0; t < n; ++t) positions[t] = (t * t) % max_length;
  reference::Matrix x(n, dim), d_position(max_length, dim), d_feature(n, dim);
  TestMatrix d_x = TestMatrix::random(n, dim, 3);
  for (std::int64_t t = 0; t < n; ++t) {
    for (std::int64_t c = 0; c < dim; ++c) {
      x(t, c) = 1.5 * feature(t, c) + position(positions[t], c);
      d_feature(t, c) = 1.5 * d_x(t, c);
      d_position(positions[t], c) += d_x(t, c);
    }
  }
  std::vector<float> first;
  for (int num_threads = 1; num_threads <= most_threads(); ++num_threads) {
    const Stream& several = threads(num_threads);
    TestMatrix out(n, dim), d_out(n, dim), d_rows(max_length, dim);
    const DeviceMatrix<const float> features[]{feature.on(stream)};
    const DeviceMatrix<float> d_features[]{d_out.on(stream)};
    token_embedding_forward(
        {features, position.on(stream), positions.on(stream), 1.5f, out.on(stream)}, several);
    token_embedding_backward(
        {d_x.on(stream), positions.on(stream), 1.5f, d_features, d_rows.on(stream)}, several);
    expect_close(out, x, 1e-6);
    expect_close(d_out, d_feature, 1e-6);
    expect_close(d_rows, d_position, 1e-5);
    if (num_threads == 1) first = d_rows.raw();
    EXPECT_EQ(d_rows.raw(), first);
  }
}

// Aligned rows, whose sums over blocks a GPU adds up four columns at a time: two blocks, and more
// than are added up at once.
TEST_P(TokenEmbeddingTest, AddsUpAlignedRowsOfManyTokens) {
  constexpr std::int64_t kLength = 20, kDim = 16;
  for (const std::int64_t n : {1100, 16 * 1024 + 1}) {
    TestArray<std::int64_t> positions(n);
    for (std::int64_t t = 0; t < n; ++t) positions[t] = (t * t) % kLength;
    const TestMatrix d_x = TestMatrix::random(n, kDim, 3).compact();
    const TestMatrix d_feature = TestMatrix(n, kDim).compact();
    const TestMatrix d_position = TestMatrix(kLength, kDim, 1).compact();  // added to
    reference::Matrix expected = d_position.in_double(), scaled = d_x.in_double();
    for (double& value : scaled.values) value *= 1.5;
    for (std::int64_t t = 0; t < n; ++t) {
      for (std::int64_t c = 0; c < kDim; ++c) expected(positions[t], c) += d_x(t, c);
    }
    const DeviceMatrix<float> d_features[]{d_feature.on(stream)};
    token_embedding_backward(
        {d_x.on(stream), positions.on(stream), 1.5f, d_features, d_position.on(stream)}, stream);
    expect_close(d_feature, scaled, 1e-6);
    expect_close(d_position, expected, 1e-4);  // thousands of floats each
  }
}

// Positions on a device are not read before the kernel: there they are the caller's to check.
TEST(TokenEmbeddingOnTheCpu, PositionBeyondTheTableIsAnError) {
  const Stream stream;
  TestMatrix x(1, 4), position(3, 4);
  const TestArray<std::int64_t> positions{3};
  EXPECT_THROW(token_embedding_forward(
                   {{}, position.on(stream), positions.on(stream), 1, x.on(stream)}, stream),
               Error);
}

}  // namespace
}  // namespace serrate
