#include "serrate/kernels/random_rows.h"

#include <gtest/gtest.h>

#include "serrate/error.h"
#include "tests/kernels/embedding/fixture.h"

namespace serrate {
namespace {

class RandomRowsTest : public EmbeddingTest {
 protected:
  /// A part of a table, with three columns behind it that are not to be written, bit for bit.
  template <typename T>
  void expect_rows(std::int64_t first_row, std::int64_t first_column, std::int64_t columns,
                   std::int64_t table_columns) {
    constexpr std::int64_t kNumRows = 5, kGap = 3;
    constexpr float kScale = 1e-4f;  // in float16 some are subnormal
    const std::int64_t stride = columns + kGap;
    const T guard(-7.0f);
    const std::vector<T> before(static_cast<std::size_t>(kNumRows * stride), guard);
    Buffer<T> values(before, stream);
    random_rows({.rows = DeviceMatrix<T>(values.device_data(), kNumRows, columns, stride),
                 .first_row = first_row,
                 .first_column = first_column,
                 .table_columns = table_columns,
                 .scale = kScale,
                 .seed = 0x123456789ull,
                 .stream = 77},
                stream);
    const std::vector<T> actual = values.to_host(stream);
    for (std::int64_t r = 0; r < kNumRows; ++r) {
      for (std::int64_t c = 0; c < stride; ++c) {
        const std::int64_t column = first_column + c;
        const auto n =
            static_cast<std::uint64_t>((first_row + r) * ((table_columns + 3) / 4) + column / 4);
        const auto words =
            philox4x32({static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(n >> 32), 77, 1},
                       {0x23456789u, 1u});
        const double fraction = (words[column % 4] >> 8) / 8388608.0 - 1;
        const T expected = c < columns ? T(static_cast<float>(kScale * fraction)) : guard;
        EXPECT_EQ(static_cast<float>(actual[r * stride + c]), static_cast<float>(expected))
            << "row " << r << ", column " << c;
      }
    }
  }
  template <typename T>
  void expect_parts() {
    expect_rows<T>(0, 0, 8, 8);
    expect_rows<T>(3, 0, 10, 10);
    expect_rows<T>(2, 3, 6, 10);
    expect_rows<T>(2, 5, 2, 10);  // within one call
    expect_rows<T>((std::int64_t{1} << 32) - 2, 1, 300, 301);
  }
};

TEST_P(RandomRowsTest, Float32) {
  expect_parts<float>();
}

TEST_P(RandomRowsTest, Float16) {
  expect_parts<Float16>();
}

TEST_P(RandomRowsTest, BFloat16) {
  expect_parts<BFloat16>();
}

TEST_P(RandomRowsTest, EmptyPartsAndRowsAndColumnsThatTheTableHasNot) {
  Buffer<float> values(8, stream);
  random_rows({.rows = values.matrix(0, 8), .table_columns = 8}, stream);
  random_rows({.rows = values.matrix(8, 0), .first_column = 8, .table_columns = 8}, stream);
  for (const auto& [row, column] : {std::pair{0, 1}, {0, -1}, {-1, 0}}) {
    EXPECT_THROW(random_rows({.rows = values.matrix(1, 8),
                              .first_row = row,
                              .first_column = column,
                              .table_columns = 8},
                             stream),
                 Error)
        << row << ", " << column;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, RandomRowsTest, testing::ValuesIn(test_devices()));

}  // namespace
}  // namespace serrate
