#include "tests/reference/jagged.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace serrate::reference {

Matrix product(const Matrix& x, const Matrix& y, Transposed transpose) {
  const Matrix a = transpose == Transposed::kLeft ? transposed(x) : x;
  const Matrix b = transpose == Transposed::kRight ? transposed(y) : y;
  Matrix z(a.rows, b.cols);
  for (std::int64_t r = 0; r < z.rows; ++r) {
    for (std::int64_t c = 0; c < z.cols; ++c) {
      for (std::int64_t i = 0; i < a.cols; ++i) z(r, c) += a(r, i) * b(i, c);
    }
  }
  return z;
}

Matrix softmax(const Matrix& x, SoftmaxAxis axis) {
  if (axis == SoftmaxAxis::kRows) return transposed(softmax(transposed(x), SoftmaxAxis::kColumns));
  Matrix z = x;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int64_t c = 0; c < x.cols; ++c) max = std::max(max, x(r, c));
    for (std::int64_t c = 0; c < x.cols; ++c) {
      sum += z(r, c) = std::isinf(max) ? 0 : std::exp(x(r, c) - max);
    }
    for (std::int64_t c = 0; c < x.cols && sum > 0; ++c) z(r, c) /= sum;
  }
  return z;
}

Matrix elementwise(Elementwise op, const Matrix& x, const Matrix& y) {
  Matrix z = x;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t c = 0; c < x.cols; ++c) {
      const double other = r < y.rows && c < y.cols ? y(r, c) : 0;
      z(r, c) = op == Elementwise::kAdd ? x(r, c) + other : x(r, c) * other;
    }
  }
  return z;
}

Matrix resized(const Matrix& x, std::int64_t rows, std::int64_t cols, double fill) {
  Matrix z(rows, cols);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) z(r, c) = r < x.rows && c < x.cols ? x(r, c) : fill;
  }
  return z;
}

Matrix concat(const Matrix& x, const Matrix& y) {
  Matrix z(x.rows + y.rows, x.cols);
  std::copy(x.values.begin(), x.values.end(), z.values.begin());
  std::copy(y.values.begin(), y.values.end(), z.values.begin() + x.rows * x.cols);
  return z;
}

}  // namespace serrate::reference
