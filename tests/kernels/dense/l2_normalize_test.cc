#include "serrate/kernels/l2_normalize.h"

#include "tests/kernels/test_matrix.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

class L2NormalizeTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, L2NormalizeTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(L2NormalizeTest, AgreesWithRowsByHandAndKeepsZeroRows) {
  TestMatrix x = test_matrix(2, 2, {3, 4, 0, 0}), y(2, 2);
  const TestArray<float> norms(2);
  l2_normalize_forward(x.on(stream), y.on(stream), norms.on(stream), stream);
  expect_close(y, test_matrix(2, 2, {0.6f, 0.8f, 0, 0}).in_double(), 1e-7);
  EXPECT_EQ(norms.host(), (std::vector<float>{5, 0}));
}

class L2NormalizeColumns : public KernelTestOver<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Columns, L2NormalizeColumns,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(1, 3, 16, 37, 64)));

TEST_P(L2NormalizeColumns, AgreesWithTheReferenceInPlace) {
  const std::int64_t rows = 20, cols = param();
  TestMatrix x = TestMatrix::random(rows, cols, 1);
  for (std::int64_t r = 0; r < rows; ++r) x(r, 0) += 2;  // rounding grows as 1 / |x|
  TestMatrix y = x;
  TestMatrix d_y = TestMatrix::random(rows, cols, 2), d_x = d_y;
  const TestArray<float> norms(rows);
  l2_normalize_forward(x.on(stream), y.on(stream), norms.on(stream), threads(2));
  l2_normalize_backward(y.on(stream), norms.on(stream), d_x.on(stream), d_x.on(stream), threads(3));

  reference::Matrix at = x.in_double();
  const reference::Matrix weights = d_y.in_double();
  const auto value = [&] { return reference::l2_normalize(at, kL2NormalizeEps); };
  expect_close(y, value(), 1e-6);
  expect_close(d_x, numeric_gradient(at, [&] { return reference::dot(weights, value()); }), 2e-5);
}

// Below eps y = x / eps, so d_x = d_y / eps.
TEST_P(L2NormalizeTest, ShortRowsHaveTheGradientOfADivision) {
  TestMatrix x = test_matrix(1, 2, {kL2NormalizeEps / 2, 0}), y(1, 2);
  TestMatrix d_y = test_matrix(1, 2, {1, 2}), d_x(1, 2);
  const TestArray<float> norms(1);
  l2_normalize_forward(x.on(stream), y.on(stream), norms.on(stream), stream);
  l2_normalize_backward(y.on(stream), norms.on(stream), d_y.on(stream), d_x.on(stream), stream);
  expect_close(y, test_matrix(1, 2, {0.5f, 0}).in_double(), 1e-6);
  expect_close(d_x, test_matrix(1, 2, {1e6f, 2e6f}).in_double(), 1e-6);
}

TEST_P(L2NormalizeTest, NoRowsTouchNothing) {
  const TestMatrix above(1, 8, 7);
  const DeviceMatrix<float> none = above.on(stream).middle_rows(0, 0);
  l2_normalize_forward(none, none, {}, stream);
  l2_normalize_backward(none, {}, none, none, stream);
  expect_close(above, TestMatrix(1, 8, 7).in_double(), 0);
}

}  // namespace
}  // namespace serrate
