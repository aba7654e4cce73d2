#include "serrate/kernels/dropout.h"

#include "serrate/error.h"
#include "tests/kernels/test_matrix.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

// As documented in dropout.h, one element at a time.
bool is_kept(const DropoutKey& key, std::int64_t token_id, std::int64_t column) {
  const std::uint64_t bits = random_bits(key.seed, RandomUse::kDropout, 0, key.step);
  const auto token = static_cast<std::uint64_t>(token_id);
  const auto words =
      philox4x32({static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(token >> 32),
                  static_cast<std::uint32_t>(column / 4), key.site},
                 {static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)});
  return words[column % 4] >= std::floor(key.rate * 4294967296.0);
}

// The known answers of Random123's kat_vectors for philox4x32-10.
TEST(Philox, KnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

class DropoutColumns : public KernelTestOver<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(Columns, DropoutColumns,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(0, 1, 3, 4, 15, 16, 64, 67, 150)));

TEST_P(DropoutColumns, KeepsTheDocumentedElements) {
  const std::int64_t rows = 9, cols = param();
  std::vector<std::int64_t> token_ids;
  for (std::int64_t r = 0; r < rows; ++r) token_ids.push_back((r << 32) * 5 + 3 * r - 1);
  const TestArray<std::int64_t> tokens(token_ids);
  const DropoutKey key{0.3f, 0x123456789abcdefull, std::int64_t{1} << 33, 7, tokens.on(stream)};
  TestMatrix x = TestMatrix::random(rows, cols, 1), residual = TestMatrix::random(rows, cols, 2);
  TestMatrix y(rows, cols), alone(rows, cols), d_x(rows, cols);
  dropout_forward(key, x.on(stream), residual.on(stream), y.on(stream), stream);
  dropout_forward(key, x.on(stream), {}, alone.on(stream), threads(2));
  dropout_backward(key, x.on(stream), d_x.on(stream), threads(3));

  reference::Matrix expected(rows, cols), expected_alone(rows, cols);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) {
      expected_alone(r, c) = is_kept(key, token_ids[r], c) ? x(r, c) / 0.7 : 0;
      expected(r, c) = residual(r, c) + expected_alone(r, c);
    }
  }
  expect_close(alone, expected_alone, 1e-6);
  expect_close(y, expected, 1e-6);
  EXPECT_EQ(d_x.raw(), alone.raw());
}

// A product's result is dropped into the float32 residual, and its gradient comes of it.
TEST_P(DropoutColumns, FromAndToBfloat16) {
  const std::int64_t rows = 9, cols = param();
  const TestArray<std::int64_t> tokens(std::vector<std::int64_t>{3, 1, 4, 15, 9, 2, 6, 5, 35});
  const DropoutKey key{0.3f, 8, 9, 7, tokens.on(stream)};
  TestMatrix x = rounded_to_halves(TestMatrix::random(rows, cols, 1)),
             residual = TestMatrix::random(rows, cols, 2), y(rows, cols), d_x(rows, cols),
             of_halves(rows, cols);
  const TestHalves x16(x), d_x16(d_x);
  const auto run = [&] {
    dropout_forward(key, x16.on(stream), residual.on(stream), of_halves.on(stream), stream);
    dropout_backward(key, residual.on(stream), d_x16.on(stream), stream);
  };
  if (!tests_run_on_devices()) {
    EXPECT_THROW(run(), Error);
    return;
  }
  run();
  dropout_forward(key, x.on(stream), residual.on(stream), y.on(stream), stream);
  dropout_backward(key, residual.on(stream), d_x.on(stream), stream);
  EXPECT_EQ(of_halves.raw(), y.raw());
  EXPECT_EQ(d_x16.in_float().raw(), rounded_to_halves(d_x).raw());
}

class DropoutTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, DropoutTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(DropoutTest, MasksDifferBySeedStepSiteAndTokenAndKeepTheRightShare) {
  const TestArray<std::int64_t> token_ids(1000), others(1000);
  for (std::int64_t r = 0; r < 1000; ++r) token_ids[r] = r, others[r] = r + (std::int64_t{1} << 32);
  const DropoutKey key{0.2f, 1, 1, 1, token_ids.on(stream)};
  const std::vector<DropoutKey> keys{key,
                                     {0.2f, 2, 1, 1, token_ids.on(stream)},
                                     {0.2f, 1, 2, 1, token_ids.on(stream)},
                                     {0.2f, 1, 1, 2, token_ids.on(stream)},
                                     {0.2f, 1, 1, 1, others.on(stream)}};
  TestMatrix ones(1000, 64, 1), base(1000, 64);
  dropout_forward(key, ones.on(stream), {}, base.on(stream), stream);
  for (std::size_t k = 0; k < keys.size(); ++k) {
    TestMatrix y(1000, 64);
    dropout_forward(keys[k], ones.on(stream), {}, y.on(stream), stream);
    int kept = 0, differ = 0;
    for (std::int64_t i = 0; i < 64000; ++i) {
      kept += y(i / 64, i % 64) != 0;
      differ += y(i / 64, i % 64) != base(i / 64, i % 64);
    }
    EXPECT_NEAR(kept, 51200, 500) << k;                      // 5 standard deviations
    EXPECT_NEAR(differ, k == 0 ? 0 : 20480, 610 * (k > 0));  // 2 * 0.2 * 0.8 when independent
  }
}

TEST_P(DropoutTest, InPlaceOnXAndOnTheResidual) {
  const TestArray<std::int64_t> token_ids{4, 5, 6};
  const DropoutKey key{0.5f, 1, 2, 3, token_ids.on(stream)};
  TestMatrix x = TestMatrix::random(3, 37, 1), residual = TestMatrix::random(3, 37, 2), y(3, 37);
  dropout_forward(key, x.on(stream), residual.on(stream), y.on(stream), stream);
  TestMatrix in_x = TestMatrix::random(3, 37, 1), in_residual = TestMatrix::random(3, 37, 2);
  dropout_forward(key, in_x.on(stream), residual.on(stream), in_x.on(stream), stream);
  dropout_forward(key, x.on(stream), in_residual.on(stream), in_residual.on(stream), stream);
  EXPECT_EQ(in_x.raw(), y.raw());
  EXPECT_EQ(in_residual.raw(), y.raw());
}

TEST_P(DropoutTest, RateZeroCopiesOrAdds) {
  TestMatrix x = test_matrix(1, 2, {1, 2}), residual = test_matrix(1, 2, {10, 20}), y(1, 2);
  dropout_forward({}, x.on(stream), residual.on(stream), y.on(stream), stream);
  expect_close(y, test_matrix(1, 2, {11, 22}).in_double(), 0);
  dropout_backward({}, x.on(stream), y.on(stream), stream);
  expect_close(y, x.in_double(), 0);
}

TEST_P(DropoutTest, NamesAMatrixOfAnotherType) {
  const OutputMatrix half(nullptr, DataType::kFloat16, 0, 0);
  const auto forward = [&] { dropout_forward({}, half, {}, {}, stream); };
  const auto backward = [&] { dropout_backward({}, {}, half, stream); };
  expect_error(forward, "dropout: x is of fp16");
  expect_error(backward, "dropout: d_x is of fp16");
}

TEST_P(DropoutTest, RateOneIsAnError) {
  TestMatrix x(1, 2);
  const TestArray<std::int64_t> token_ids{0};
  EXPECT_THROW(
      dropout_backward({1, 0, 0, 0, token_ids.on(stream)}, x.on(stream), x.on(stream), stream),
      Error);
}

}  // namespace
}  // namespace serrate
