#include "serrate/kernels/token_embedding.h"

#include "serrate/error.h"
#include "tests/kernels/host_matrix.h"

namespace serrate {
namespace {

TEST(TokenEmbedding, AgreesWithTokensByHand) {
  HostMatrix item = host_matrix(3, 1, {1, 2, 3}), country = host_matrix(3, 1, {10, 20, 30});
  HostMatrix position = host_matrix(2, 1, {100, 200}), x(3, 1);
  const std::vector<MatrixView<const float>> features{item.view(), country.view()};
  const std::vector<std::int64_t> positions{0, 1, 0};
  token_embedding_forward({features, position.view(), positions, 2, x.view()}, Stream());
  expect_close(x, host_matrix(3, 1, {122, 244, 166}).in_double(), 0);

  HostMatrix d_position = host_matrix(2, 1, {0.5f, 0});
  const std::vector<MatrixView<float>> d_features{item.view(), country.view()};
  token_embedding_backward({x.view(), positions, 2, d_features, d_position.view()}, Stream());
  expect_close(item, host_matrix(3, 1, {244, 488, 332}).in_double(), 0);
  expect_close(country, item.in_double(), 0);
  expect_close(d_position, host_matrix(2, 1, {288.5f, 244}).in_double(), 0);
}

class TokenEmbeddingColumns : public testing::TestWithParam<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Columns, TokenEmbeddingColumns, testing::Values(0, 1, 15, 16, 50, 64));

TEST_P(TokenEmbeddingColumns, AgreesWithTheDefinitionOnAnyThreads) {
  const std::int64_t n = 301, max_length = 40, dim = GetParam();
  HostMatrix feature = HostMatrix::random(n, dim, 1);
  HostMatrix position = HostMatrix::random(max_length, dim, 2);
  std::vector<std::int64_t> positions;
  for (std::int64_t t = 0; t < n; ++t) positions.push_back((t * t) % max_length);
  reference::Matrix x(n, dim), d_position(max_length, dim), d_feature(n, dim);
  HostMatrix d_x = HostMatrix::random(n, dim, 3);
  for (std::int64_t t = 0; t < n; ++t) {
    for (std::int64_t c = 0; c < dim; ++c) {
      x(t, c) = 1.5 * feature.view().row(t)[c] + position.view().row(positions[t])[c];
      d_feature(t, c) = 1.5 * d_x.view().row(t)[c];
      d_position(positions[t], c) += d_x.view().row(t)[c];
    }
  }
  std::vector<float> first;
  for (const int num_threads : {1, 2, 3}) {
    const Stream stream(Device::cpu(), num_threads);
    HostMatrix out(n, dim), d_out(n, dim), d_rows(max_length, dim);
    const MatrixView<const float> features[]{feature.view()};
    const MatrixView<float> d_features[]{d_out.view()};
    token_embedding_forward({features, position.view(), positions, 1.5f, out.view()}, stream);
    token_embedding_backward({d_x.view(), positions, 1.5f, d_features, d_rows.view()}, stream);
    expect_close(out, x, 1e-6);
    expect_close(d_out, d_feature, 1e-6);
    expect_close(d_rows, d_position, 1e-5);
    if (num_threads == 1) first = d_rows.raw();
    EXPECT_EQ(d_rows.raw(), first);
  }
}

TEST(TokenEmbedding, PositionBeyondTheTableIsAnError) {
  HostMatrix x(1, 4), position(3, 4);
  const std::vector<std::int64_t> positions{3};
  EXPECT_THROW(token_embedding_forward({{}, position.view(), positions, 1, x.view()}, Stream()),
               Error);
}

}  // namespace
}  // namespace serrate
