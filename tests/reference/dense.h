#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "serrate/kernels/activation.h"

// The dense ops by their definitions, in double, one element at a time.
namespace serrate::reference {

struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> values;  // row after row

  Matrix() = default;
  Matrix(std::int64_t rows_, std::int64_t cols_)
      : rows(rows_), cols(cols_), values(rows_ * cols_) {}
  double& operator()(std::int64_t r, std::int64_t c) { return values[r * cols + c]; }
  double operator()(std::int64_t r, std::int64_t c) const { return values[r * cols + c]; }
};

Matrix transposed(const Matrix& x);
Matrix linear(const Matrix& x, const Matrix& weight, const Matrix& bias);
Matrix layer_norm(const Matrix& x, const Matrix& gamma, const Matrix& beta, double eps);
Matrix activation(Activation f, const Matrix& x);
Matrix l2_normalize(const Matrix& x, double eps);

struct Softmax {
  Matrix hidden, targets, negatives;
  std::vector<std::int64_t> target_ids, negative_ids;
  double inverse_temperature = 1;
};
double sampled_softmax_loss(const Softmax& args);

/// Sum of the products of the elements: the gradient of it by a is b.
double dot(const Matrix& a, const Matrix& b);

/// The gradient of `loss` by each element of x, by central differences. `loss` reads x, which is
/// moved and put back.
Matrix numeric_gradient(Matrix& x, const std::function<double()>& loss);

}  // namespace serrate::reference
