#include "tests/reference/dense.h"

#include <cmath>

namespace serrate::reference {

Matrix transposed(const Matrix& x) {
  Matrix y(x.cols, x.rows);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t c = 0; c < x.cols; ++c) y(c, r) = x(r, c);
  }
  return y;
}

Matrix linear(const Matrix& x, const Matrix& weight, const Matrix& bias) {
  Matrix y(x.rows, weight.rows);
  for (std::int64_t r = 0; r < y.rows; ++r) {
    for (std::int64_t o = 0; o < y.cols; ++o) {
      y(r, o) = bias.values.empty() ? 0 : bias.values[o];
      for (std::int64_t i = 0; i < x.cols; ++i) y(r, o) += x(r, i) * weight(o, i);
    }
  }
  return y;
}

Matrix layer_norm(const Matrix& x, const Matrix& gamma, const Matrix& beta, double eps) {
  Matrix y(x.rows, x.cols);
  const auto dim = static_cast<double>(x.cols);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    double mean = 0, variance = 0;
    for (std::int64_t c = 0; c < x.cols; ++c) mean += x(r, c) / dim;
    for (std::int64_t c = 0; c < x.cols; ++c) variance += std::pow(x(r, c) - mean, 2) / dim;
    for (std::int64_t c = 0; c < x.cols; ++c) {
      y(r, c) = (x(r, c) - mean) / std::sqrt(variance + eps) * gamma.values[c] + beta.values[c];
    }
  }
  return y;
}

Matrix activation(Activation f, const Matrix& x) {
  Matrix y(x.rows, x.cols);
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    const double v = x.values[i];
    const double inner = std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
    y.values[i] = f == Activation::kGelu       ? v * std::erfc(-v / std::sqrt(2.0)) / 2
                  : f == Activation::kGeluTanh ? v / 2 * (1 + std::tanh(inner))
                  : f == Activation::kRelu     ? std::max(v, 0.0)
                                               : v / (1 + std::exp(-v));
  }
  return y;
}

Matrix l2_normalize(const Matrix& x, double eps) {
  Matrix y(x.rows, x.cols);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (std::int64_t c = 0; c < x.cols; ++c) squares += x(r, c) * x(r, c);
    for (std::int64_t c = 0; c < x.cols; ++c) {
      y(r, c) = x(r, c) / std::max(std::sqrt(squares), eps);
    }
  }
  return y;
}

double sampled_softmax_loss(const Softmax& args) {
  double loss = 0;
  for (std::int64_t t = 0; t < args.hidden.rows; ++t) {
    const auto logit = [&](const Matrix& rows, std::int64_t r) {
      double sum = 0;
      for (std::int64_t c = 0; c < rows.cols; ++c) sum += args.hidden(t, c) * rows(r, c);
      return sum * args.inverse_temperature;
    };
    const double target = logit(args.targets, t);
    double total = 1;  // exp(target - target)
    for (std::int64_t i = 0; i < args.negatives.rows; ++i) {
      if (args.negative_ids[i] == args.target_ids[t]) continue;
      total += std::exp(logit(args.negatives, i) - target);
    }
    loss += std::log(total);
  }
  return loss;
}

double dot(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) sum += a.values[i] * b.values[i];
  return sum;
}

Matrix numeric_gradient(Matrix& x, const std::function<double()>& loss) {
  constexpr double kStep = 1e-5;
  Matrix gradient(x.rows, x.cols);
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    const double value = x.values[i];
    x.values[i] = value + kStep;
    const double above = loss();
    x.values[i] = value - kStep;
    gradient.values[i] = (above - loss()) / (2 * kStep);
    x.values[i] = value;
  }
  return gradient;
}

}  // namespace serrate::reference
