#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "serrate/bfloat16.h"
#include "serrate/device_span.h"
#include "serrate/error.h"
#include "serrate/random.h"
#include "tests/reference/dense.h"
#include "tests/support/test_array.h"

namespace serrate {

/// A matrix of floats for host and device (TestArray) with columns behind each row that no kernel
/// may write; so its rows are not aligned, those of a compact() one are.
class TestMatrix {
 public:
  static constexpr std::int64_t kPadding = 3;
  static constexpr float kGuard = -12345;

  TestMatrix(std::int64_t rows, std::int64_t cols, float fill = 0, std::int64_t padding = kPadding)
      : rows_(rows), cols_(cols), stride_(cols + padding), values_(rows * stride_, kGuard) {
    for (std::int64_t r = 0; r < rows; ++r) std::fill_n(host_row(r), cols, fill);
  }
  /// Uniform in [-scale, scale).
  static TestMatrix random(std::int64_t rows, std::int64_t cols, std::uint32_t seed,
                           float scale = 1) {
    TestMatrix result(rows, cols);
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const double uniform = random_uniform(seed, RandomUse::kInit, 0, i);
      result(i / cols, i % cols) = scale * static_cast<float>(2 * uniform - 1);
    }
    return result;
  }
  /// The same without columns behind the rows.
  TestMatrix compact() const {
    TestMatrix result(rows_, cols_, 0, 0);
    for (std::int64_t r = 0; r < rows_; ++r) {
      std::copy_n(host_row(r), cols_, result.host_row(r));
    }
    return result;
  }

  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  std::int64_t stride() const { return stride_; }
  /// For an op; see TestArray::on().
  DeviceMatrix<float> on(const Stream& stream) const {
    return {values_.on(stream).device_data(), rows_, cols_, stride_};
  }
  /// The only row, as a vector argument.
  DeviceSpan<float> row_on(const Stream& stream) const { return values_.on(stream).first(cols_); }
  /// On the host.
  float& operator()(std::int64_t r, std::int64_t c) const { return host_row(r)[c]; }
  /// With what is behind each row.
  const std::vector<float>& raw() const { return values_.host(); }

  reference::Matrix in_double() const {
    reference::Matrix result(rows_, cols_);
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) result(r, c) = (*this)(r, c);
    }
    return result;
  }

  bool guards_hold() const {
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = cols_; c < stride_; ++c) {
        if ((*this)(r, c) != kGuard) return false;
      }
    }
    return true;
  }

 private:
  float* host_row(std::int64_t r) const { return values_.host().data() + r * stride_; }

  std::int64_t rows_, cols_, stride_;
  TestArray<float> values_;
};

/// The same of bfloat16, with the values of a TestMatrix rounded to nearest.
class TestHalves {
 public:
  explicit TestHalves(const TestMatrix& matrix) : shape_(matrix) {
    std::vector<BFloat16> rounded;
    for (const float value : matrix.raw()) rounded.emplace_back(value);
    values_ = rounded;
  }

  DeviceMatrix<BFloat16> on(const Stream& stream) const {
    return {values_.on(stream).device_data(), shape_.rows(), shape_.cols(), shape_.stride()};
  }
  /// Exactly.
  TestMatrix in_float() const {
    const auto guard = static_cast<float>(BFloat16(TestMatrix::kGuard));
    TestMatrix result = shape_;
    for (std::int64_t r = 0; r < result.rows(); ++r) {
      const BFloat16* const row = values_.host().data() + r * result.stride();
      for (std::int64_t c = 0; c < result.cols(); ++c) result(r, c) = static_cast<float>(row[c]);
      for (std::int64_t c = result.cols(); c < result.stride(); ++c) {
        EXPECT_EQ(static_cast<float>(row[c]), guard) << "written past the columns of row " << r;
      }
    }
    return result;
  }

 private:
  TestMatrix shape_;
  TestArray<BFloat16> values_;
};

/// What is left of float32 values that are stored in bfloat16.
inline TestMatrix rounded_to_halves(const TestMatrix& matrix) {
  return TestHalves(matrix).in_float();
}

inline TestMatrix test_matrix(std::int64_t rows, std::int64_t cols,
                              const std::vector<float>& values) {
  TestMatrix result(rows, cols);
  for (std::int64_t i = 0; i < rows * cols; ++i) result(i / cols, i % cols) = values[i];
  return result;
}

/// Each element within `tolerance` of the expected, relative above 1.
inline void expect_close(const TestMatrix& actual, const reference::Matrix& expected,
                         double tolerance) {
  EXPECT_TRUE(actual.guards_hold()) << "written past the columns of a row";
  ASSERT_EQ(actual.rows(), expected.rows);
  ASSERT_EQ(actual.cols(), expected.cols);
  for (std::int64_t r = 0; r < expected.rows; ++r) {
    for (std::int64_t c = 0; c < expected.cols; ++c) {
      const double want = expected(r, c);
      ASSERT_NEAR(actual(r, c), want, tolerance * std::max(1.0, std::abs(want)))
          << "row " << r << ", column " << c;
    }
  }
}

/// The call throws an Error that begins so.
template <typename F>
void expect_error(F&& call, const std::string& beginning) {
  try {
    call();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).substr(0, beginning.size()), beginning);
  }
}

}  // namespace serrate
