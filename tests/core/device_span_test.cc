#include "serrate/device_span.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "serrate/any_matrix.h"
#include "serrate/buffer.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using testing::message_of;

template <typename T>
concept HasElements = requires(T values) { values[0]; } || requires(T values) {
  *values;
} || requires(T values) { values.data(); } || requires(T values) { values.front(); };

// What would fail on the first GPU does not compile.
static_assert(!HasElements<DeviceSpan<int>> && !HasElements<DeviceSpan<const int>>);
static_assert(!std::ranges::range<DeviceSpan<int>>);
static_assert(!std::is_convertible_v<DeviceSpan<int>, std::span<int>>);
static_assert(!std::is_constructible_v<std::span<const int>, DeviceSpan<int>>);
static_assert(!std::is_convertible_v<std::span<int>, DeviceSpan<int>>);
static_assert(!std::is_convertible_v<std::vector<int>&, DeviceSpan<const int>>);
static_assert(!std::is_convertible_v<DeviceMatrix<float>, MatrixView<float>>);
static_assert(!std::is_constructible_v<MatrixView<const float>, DeviceMatrix<float>>);
static_assert(!std::is_convertible_v<MatrixView<float>, DeviceMatrix<float>>);
static_assert(!HasElements<decltype(DeviceMatrix<float>().row(0))>);
static_assert(!HasElements<Buffer<int>> && !std::ranges::range<Buffer<int>>);
static_assert(HasElements<std::span<int>>);
static_assert(std::is_convertible_v<DeviceSpan<int>, DeviceSpan<const int>>);
static_assert(!std::is_convertible_v<DeviceSpan<const int>, DeviceSpan<int>>);
static_assert(std::is_convertible_v<DeviceMatrix<float>, DeviceMatrix<const float>>);
static_assert(!std::is_convertible_v<DeviceMatrix<const float>, DeviceMatrix<float>>);

TEST(DeviceSpan, IsCutAsASpan) {
  std::array<int, 6> memory{};
  const DeviceSpan<int> all(memory.data(), memory.size());
  EXPECT_EQ(all.size_bytes(), 6 * sizeof(int));
  EXPECT_FALSE(all.empty());
  EXPECT_EQ(all.first(2).device_data(), &memory[0]);
  EXPECT_EQ(all.first(2).size(), 2u);
  EXPECT_EQ(all.last(2).device_data(), &memory[4]);
  EXPECT_EQ(all.last(2).size(), 2u);
  EXPECT_EQ(all.subspan(1).device_data(), &memory[1]);
  EXPECT_EQ(all.subspan(1).size(), 5u);
  EXPECT_EQ(all.subspan(1, 3).device_data(), &memory[1]);
  EXPECT_EQ(all.subspan(1, 3).size(), 3u);
  EXPECT_TRUE(all.subspan(6).empty());
  EXPECT_TRUE(DeviceSpan<int>().empty());
}

TEST(DeviceMatrix, IsCutAsAMatrixView) {
  std::array<float, 20> memory{};
  const DeviceMatrix<float> matrix(memory.data(), 4, 3, 5);
  const DeviceMatrix<float> columns = matrix.columns(1, 3), rows = matrix.middle_rows(1, 3);
  EXPECT_EQ(columns.device_data(), &memory[1]);
  EXPECT_EQ(columns.rows, 4);
  EXPECT_EQ(columns.cols, 2);
  EXPECT_EQ(columns.stride, 5);
  EXPECT_EQ(rows.device_data(), &memory[5]);
  EXPECT_EQ(rows.rows, 2);
  EXPECT_EQ(rows.cols, 3);
  EXPECT_EQ(rows.stride, 5);
  EXPECT_EQ(matrix.row(2).device_data(), &memory[10]);
  EXPECT_EQ(matrix.row(2).size(), 3u);
  EXPECT_TRUE(matrix.has_data());
  EXPECT_FALSE(DeviceMatrix<float>().has_data());
}

TEST(AnyMatrix, IsCutWithinItsColumnsAndConvertsNothing) {
  std::array<BFloat16, 20> memory{};
  const OutputMatrix matrix = DeviceMatrix<BFloat16>(memory.data(), 4, 3, 5);
  const OutputMatrix columns = matrix.columns(1, 3);
  EXPECT_EQ(columns.device_data(), &memory[1]);
  EXPECT_EQ(columns.rows, 4);
  EXPECT_EQ(columns.cols, 2);
  EXPECT_EQ(columns.stride, 5);
  EXPECT_EQ(matrix.columns(3, 3).cols, 0);
  EXPECT_THROW(matrix.columns(-1, 2), Error);
  EXPECT_THROW(matrix.columns(2, 1), Error);
  EXPECT_THROW(matrix.columns(1, 4), Error);
  EXPECT_EQ(matrix.as<BFloat16>().device_data(), memory.data());
  const std::string message = message_of<Error>([&] { (void)matrix.as<float>(); });
  EXPECT_NE(message.find("a matrix of bf16 is taken as one of fp32"), std::string::npos) << message;
}

TEST(DeviceSpan, IsReadOnTheHostByWhoHasACpuStream) {
  std::vector<int> memory = {1, 2, 3};
  const Stream stream;
  const std::span<int> host = host_view(on_cpu(memory), stream);
  EXPECT_EQ(host.data(), memory.data());
  EXPECT_EQ(host.size(), 3u);
  const MatrixView<int> matrix = host_view(on_cpu(MatrixView<int>(memory.data(), 1, 2, 3)), stream);
  EXPECT_EQ(matrix.row(0)[1], 2);
  EXPECT_EQ(matrix.rows, 1);
  EXPECT_EQ(matrix.cols, 2);
  EXPECT_EQ(matrix.stride, 3);
}

}  // namespace
}  // namespace serrate
