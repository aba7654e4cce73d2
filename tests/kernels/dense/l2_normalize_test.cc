#include "serrate/kernels/l2_normalize.h"

#include "tests/kernels/host_matrix.h"

namespace serrate {
namespace {

TEST(L2Normalize, AgreesWithRowsByHandAndKeepsZeroRows) {
  HostMatrix x = host_matrix(2, 2, {3, 4, 0, 0}), y(2, 2);
  std::vector<float> norms(2);
  l2_normalize_forward(x.view(), y.view(), norms, Stream());
  expect_close(y, host_matrix(2, 2, {0.6f, 0.8f, 0, 0}).in_double(), 1e-7);
  EXPECT_EQ(norms, (std::vector<float>{5, 0}));
}

class L2NormalizeColumns : public testing::TestWithParam<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Columns, L2NormalizeColumns, testing::Values(1, 3, 16, 37, 64));

TEST_P(L2NormalizeColumns, AgreesWithTheReferenceInPlace) {
  const std::int64_t rows = 20, cols = GetParam();
  HostMatrix x = HostMatrix::random(rows, cols, 1);
  for (std::int64_t r = 0; r < rows; ++r) x.view().row(r)[0] += 2;  // rounding grows as 1 / |x|
  HostMatrix y = x;
  HostMatrix d_y = HostMatrix::random(rows, cols, 2), d_x = d_y;
  std::vector<float> norms(rows);
  l2_normalize_forward(x.view(), y.view(), norms, Stream(Device::cpu(), 2));
  l2_normalize_backward(y.view(), norms, d_x.view(), d_x.view(), Stream(Device::cpu(), 3));

  reference::Matrix at = x.in_double();
  const reference::Matrix weights = d_y.in_double();
  const auto value = [&] { return reference::l2_normalize(at, kL2NormalizeEps); };
  expect_close(y, value(), 1e-6);
  expect_close(d_x, numeric_gradient(at, [&] { return reference::dot(weights, value()); }), 2e-5);
}

// Below eps y = x / eps, so d_x = d_y / eps.
TEST(L2Normalize, ShortRowsHaveTheGradientOfADivision) {
  HostMatrix x = host_matrix(1, 2, {kL2NormalizeEps / 2, 0}), y(1, 2);
  HostMatrix d_y = host_matrix(1, 2, {1, 2}), d_x(1, 2);
  std::vector<float> norms(1);
  l2_normalize_forward(x.view(), y.view(), norms, Stream());
  l2_normalize_backward(y.view(), norms, d_y.view(), d_x.view(), Stream());
  expect_close(y, host_matrix(1, 2, {0.5f, 0}).in_double(), 1e-6);
  expect_close(d_x, host_matrix(1, 2, {1e6f, 2e6f}).in_double(), 1e-6);
}

}  // namespace
}  // namespace serrate
