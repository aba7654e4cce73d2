#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "serrate/matrix_view.h"
#include "serrate/random.h"
#include "tests/reference/dense.h"

namespace serrate {

/// A matrix of floats with columns behind each row that no kernel may write.
class HostMatrix {
 public:
  static constexpr std::int64_t kPadding = 3;
  static constexpr float kGuard = -12345;

  HostMatrix(std::int64_t rows, std::int64_t cols, float fill = 0)
      : rows_(rows), cols_(cols), values_(rows * (cols + kPadding), kGuard) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) view().row(r)[c] = fill;
    }
  }
  /// Uniform in [-scale, scale).
  static HostMatrix random(std::int64_t rows, std::int64_t cols, std::uint32_t seed,
                           float scale = 1) {
    HostMatrix result(rows, cols);
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const double uniform = random_uniform(seed, RandomUse::kInit, 0, i);
      result.view().row(i / cols)[i % cols] = scale * static_cast<float>(2 * uniform - 1);
    }
    return result;
  }

  MatrixView<float> view() { return {values_.data(), rows_, cols_, cols_ + kPadding}; }
  const std::vector<float>& raw() const { return values_; }

  reference::Matrix in_double() {
    reference::Matrix result(rows_, cols_);
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) result(r, c) = view().row(r)[c];
    }
    return result;
  }

  bool guards_hold() {
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = cols_; c < cols_ + kPadding; ++c) {
        if (view().row(r)[c] != kGuard) return false;
      }
    }
    return true;
  }

 private:
  std::int64_t rows_, cols_;
  std::vector<float> values_;
};

inline HostMatrix host_matrix(std::int64_t rows, std::int64_t cols,
                              const std::vector<float>& values) {
  HostMatrix result(rows, cols);
  for (std::int64_t i = 0; i < rows * cols; ++i) result.view().row(i / cols)[i % cols] = values[i];
  return result;
}

/// Each element within `tolerance` of the expected, relative above 1.
inline void expect_close(HostMatrix& actual, const reference::Matrix& expected, double tolerance) {
  EXPECT_TRUE(actual.guards_hold()) << "written past the columns of a row";
  ASSERT_EQ(actual.view().rows, expected.rows);
  ASSERT_EQ(actual.view().cols, expected.cols);
  for (std::int64_t r = 0; r < expected.rows; ++r) {
    for (std::int64_t c = 0; c < expected.cols; ++c) {
      const double want = expected(r, c);
      ASSERT_NEAR(actual.view().row(r)[c], want, tolerance * std::max(1.0, std::abs(want)))
          << "row " << r << ", column " << c;
    }
  }
}

/// The only row of a matrix, as the span of a vector argument.
inline std::span<float> only_row(HostMatrix& m) {
  return {m.view().data, static_cast<std::size_t>(m.view().cols)};
}

}  // namespace serrate
